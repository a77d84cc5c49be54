"""A manifest -> what a report tells of its model: title, facts, and whom data and weights are owed to."""

from hilum.bundle import Manifest
from hilum.data.table import Table
from hilum.inference.ensemble import member_facts
from hilum.recipe import Recipe, architectures, parse_recipe


def title(manifest: Manifest) -> str:
    """Return the recipe's name, and the network where the name says none or another; of an ensemble its networks."""
    architecture = manifest.training.architecture
    if manifest.members:
        whole = f"nsemble of {architecture}"
        return f"E{whole}" if manifest.name == "ensemble" else f"{manifest.name} (e{whole})"
    return architectures.title(manifest.name, architecture)


def facts(manifest: Manifest, bundle_hash: str) -> tuple[tuple[str, str], ...]:
    """Return what a report tells of a model, (name, value) in reading order; of an ensemble, of its members."""
    training, seen = manifest.training, manifest.seen
    settings = parse_recipe(manifest.recipe)
    ages = f"{seen.ages[0]:g} to {seen.ages[1]:g} years" if seen.ages else "unknown"
    negatives = f"; negatives: {manifest.task.negatives}" if manifest.task.kind == "binary" else ""
    chosen = "epoch and temperature" if manifest.task.exclusive else "epoch, temperature and threshold"
    chosen = "the epoch was" if manifest.recalibrated else f"{chosen} were"
    recalibrated = tuple(
        ("Recalibration", f"{one.summary}; of bundle {one.parent[:16]}, {one.created}")
        for one in manifest.recalibrations
    )
    intercepts = ", ".join(f"{value:.3f}" for value in manifest.calibration.intercepts)
    unfitted = tuple(("Not calibrated", f"{note}.") for note in manifest.temperature_notes)
    first = (
        ("Bundle", bundle_hash),
        ("Made", f"{manifest.created} by Hilum {manifest.versions.get('hilum', '')}"),
        ("Task", f"{manifest.task.kind}: {', '.join(manifest.findings)}{negatives}"),
        ("Input", f"{manifest.input.size} x {manifest.input.size} pixels, grey, {manifest.input.fit}"),
    )
    if manifest.members:
        mean = "the mean of the members' calibrated logits; maps likewise"
        whole = ("Ensemble", f"{training.architecture}: {mean}")
        leaks = (("Leaks", "; ".join(training.leaks)),) if training.leaks else ()
        seen_ = ("Views and ages in training", f"{', '.join(seen.views) or 'unknown'}; {ages}")
        return (*first, whole, *member_facts(manifest), seen_, *leaks, *recalibrated, *unfitted)
    return (
        *first,
        ("Network", f"{training.architecture}, {_network(settings)}"),
        ("Initial weights", training.initial_weights),
        ("Training images", f"{training.num_train:,} of {training.num_patients:,} patients"),
        ("Validation images", f"{training.num_val:,}: {chosen} chosen on them"),
        ("Views and ages in training", f"{', '.join(seen.views) or 'unknown'}; {ages}"),
        ("Split", f"{training.split_description} (hash {training.split_hash[:16]})"),
        *((("Leaks", "; ".join(training.leaks)),) if training.leaks else ()),
        ("Balance", training.balance or settings.balance.method),
        (
            "Training",
            (
                f"{training.epochs} of at most {settings.train.epochs} epochs ({training.stopped}), the best by "
                f"{settings.train.monitor} is {training.best_epoch}; batches of {settings.train.batch_size}, "
                f"{settings.train.optimizer}, learning rate {settings.train.learning_rate:g} "
                f"({settings.train.schedule}), loss {settings.train.loss}, seed {settings.train.seed}"
            ),
        ),
        ("Engine", f"{training.engine}, {training.precision}; {training.seconds:,.0f} s"),
        *recalibrated,
        ("Temperatures", ", ".join(f"{value:.3f}" for value in manifest.calibration.temperatures)),
        *unfitted,
        *((("Intercepts", intercepts),) if intercepts else ()),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    )


def _network(settings: Recipe) -> str:
    model, thaw = settings.model, settings.train.unfreeze_after
    share = f"the first {model.frozen_share:.0%} of the layers frozen"
    learned = {0.0: "all layers trained", 1.0: "frozen"}.get(model.frozen_share, share)
    learned += f", thawing after epoch {thaw}" if thaw else ""
    block = "" if model.block == "none" else f"{model.block} block, "
    head = " - ".join(map(str, (*model.hidden, len(settings.task.findings))))
    return f"{learned}; {block}{model.pool} pool, dense layers {head}"


def citations(manifest: Manifest, table: Table) -> tuple[str, ...]:
    """Return whom the data and the initial weights are owed to."""
    owed = (*manifest.data, *(source for one in manifest.recalibrations for source in one.data))
    trained_on = [f"{source.citation} ({source.terms})" for source in owed]
    lines = trained_on + [f"{source.citation} ({source.terms})" for source in table.sources]
    if manifest.training.initial_weights_citation:
        lines.append(
            f"{manifest.training.initial_weights_citation} ({manifest.training.initial_weights_licence})"
        )
    return tuple(dict.fromkeys(lines))
