"""`hilum bundle`: sealed models, shown, verified, joined, and calibrated for another site."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.data import read_table
from hilum.cli.options import (
    BundleArgument,
    BundleOutput,
    ExpectOption,
    JsonOption,
    ReadingOptions,
    argument,
    expanded,
    option,
)
from hilum.progress import count

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Sealed models: show, verify, join, calibrate for another site.",
    epilog="Begin with: hilum bundle show runs/k",
)


@app.command("show", epilog="Example: hilum bundle show runs/k")
def bundle_show(model: BundleArgument, expect: ExpectOption = None, as_json: JsonOption = False) -> None:
    """Tell what a bundle is and what it was trained on."""
    from hilum.bundle import read_bundle
    from hilum.cli.terminal import show_json, show_pairs

    bundle = read_bundle(model, expect=expect)
    manifest = bundle.manifest
    if as_json:
        show_json({"bundle": bundle.hash, **manifest.model_dump(mode="json")})
        return
    training, seen = manifest.training, manifest.seen
    show_pairs(
        {
            "bundle": bundle.hash,
            "name": manifest.name,
            "intended use": manifest.intended_use,
            "task": manifest.task.kind,
            "input": f"{manifest.input.size} x {manifest.input.size} pixels, {manifest.input.fit}",
            "model": ("ensemble of " if manifest.members else "")
            + f"{training.architecture} ({training.engine}, {training.precision})",
            "initial weights": training.initial_weights,
            "trained on": ("each on at most " if manifest.members else "")
            + f"{count(training.num_train, 'image')} of {count(training.num_patients, 'patient')} "
            f"({', '.join(seen.sources)}); validation {training.num_val:,}, test {training.num_test:,}",
            "split": "of each member its own, below" if manifest.members else training.split_description,
            "views, ages": f"{', '.join(seen.views) or 'unknown'}; "
            + (f"{seen.ages[0]:g} to {seen.ages[1]:g} years" if seen.ages else "unknown"),
            "epochs": f"at most {training.epochs} each; {training.seconds:.0f} s in all"
            if manifest.members
            else f"{training.epochs}, best {training.best_epoch}; {training.seconds:.0f} s",
            **_members(manifest),
            **_recalibrations(manifest),
        }
    )
    _show_calibration(manifest)
    for note in manifest.temperature_notes:
        typer.echo(f"note: {note}")


@app.command("verify", epilog="Example: hilum bundle verify runs/k --expect 3f9a12bc")
def bundle_verify(model: BundleArgument, expect: ExpectOption = None, as_json: JsonOption = False) -> None:
    """Check that nothing changed since a bundle was sealed.

    Every file's hash, the graph, and its golden output. Exit status 1 if anything differs.
    """
    from hilum.cli.terminal import show_json
    from hilum.inference.predictor import Predictor

    loaded = Predictor.load(model, expect=expect)
    if as_json:
        show_json({"bundle": loaded.bundle.hash, "whole": True})
    else:
        typer.echo(f"whole: bundle {loaded.bundle.hash}, golden output reproduced")


@dataclass(frozen=True)
class CalibrationOptions:
    """What calibrates, and by which rule."""

    split: Annotated[
        str | None,
        option(
            "--split",
            help="What of the site's own split calibrates: val, train, train+val or all, never test; if not given val, "
            "else train, else all.",
        ),
    ] = None
    share: Annotated[
        float | None,
        option(
            "--share",
            help="Share of those patients who calibrate, above 0 and at most 1; if not given all, or half where the "
            "site has no split.",
        ),
    ] = None
    sensitivity: Annotated[
        float | None,
        option(
            "--sensitivity",
            help="Choose the thresholds that reach this sensitivity, such as 0.95; if not given by the bundle's own "
            "rule.",
        ),
    ] = None
    site: Annotated[str, typer.Option("--site", help="The site's name; the data set's if not given.")] = ""


@app.command(
    "recalibrate",
    epilog="Example: hilum bundle recalibrate runs/k --data SITE --sensitivity 0.95 -o k-at-site",
)
@expanded()
def bundle_recalibrate(
    model: BundleArgument,
    data: Annotated[Path, option("--data", help="The site's data set, CSV file or table (.parquet).")],
    output: BundleOutput,
    calibration: CalibrationOptions,
    reading: ReadingOptions,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Calibrate a bundle on another site's images.

    The result is a new bundle of the same weights, with temperatures, intercepts and thresholds fitted anew. The site's
    test part is not touched, and evaluate leaves the patients who calibrated out. A model that ranks no better than
    chance there is refused.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.evaluation import recalibrate
    from hilum.inference.predictor import Predictor
    from hilum.report import formatting

    loaded = Predictor.load(model, expect=expect)
    plan = recalibrate.SiteCalibration(
        part=calibration.split,
        share=calibration.share,
        sensitivity=calibration.sensitivity,
        site=calibration.site,
    )
    recalibrate.check(loaded.manifest, output, plan)
    table = read_table(data, reading)
    watch = Terminal()
    result = recalibrate.recalibrate(loaded, table, output, plan, watch=watch)
    manifest = result.bundle.manifest
    figures = {
        finding: {
            name: {
                "before": result.before[finding][name].to_dict(),
                "after": result.after[finding][name].to_dict(),
            }
            for name in recalibrate.METRICS
        }
        for finding in result.findings
    }
    if as_json:
        record = manifest.recalibrations[-1].model_dump(mode="json")
        show_json(
            {
                "bundle": result.bundle.hash,
                **record,
                "calibration": manifest.calibration.model_dump(mode="json"),
                "figures": figures,
                "notes": [note.to_dict() for note in result.notes],
            }
        )
        return
    for caution in result.cautions:
        watch.say(f"warning: {caution}")
    for note in result.notes:
        watch.say(f"note: {note}")
    show(
        [
            [finding, formatting.NAMES[name], *(formatting.estimate(entry) for entry in pair.values())]
            for finding, row in figures.items()
            for name, pair in row.items()
        ],
        header=["finding", "figure", "before", "after (five folds of patients)"],
        right=(2, 3),
    )
    typer.echo()
    _show_calibration(manifest)
    watch.say(f"{manifest.recalibrations[-1].summary}. {RESEARCH}")
    typer.echo(f"bundle: {result.bundle.folder} ({result.bundle.hash})")
    moved = f" --images {reading.images}" if reading.images else ""
    watch.say(f"next: hilum evaluate {output} --data {data}{moved} --internal {model}")


@app.command("ensemble", epilog="Example: hilum bundle ensemble runs/a runs/b runs/c -o abc")
def bundle_ensemble(
    models: Annotated[list[Path], argument(help="Bundles, or runs' folders that hold one.")],
    output: BundleOutput,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            help="What to call it; if not given the members' name with -ensemble, where they share one.",
        ),
    ] = "",
) -> None:
    """Join several bundles into one, the mean of theirs.

    Calibrated logits, maps and thresholds are averaged. The members need the same findings, task, size and fit;
    engines and networks may differ. They keep the order given.
    """
    from hilum.bundle import read_bundle
    from hilum.cli.terminal import RESEARCH, Terminal
    from hilum.evaluation.facts import title
    from hilum.inference import ensemble

    watch = Terminal()
    members = [read_bundle(model) for model in models]
    twice = len(members) - len({member.hash for member in members})
    if twice:
        watch.say("note: a bundle stands there more than once and counts as often")
    sealed = ensemble.ensemble(members, output, name=name, watch=watch)
    _show_calibration(sealed.manifest)
    watch.say(f"{title(sealed.manifest)}. {RESEARCH}")
    typer.echo(f"bundle: {sealed.folder} ({sealed.hash})")


def _members(manifest: Any) -> dict[str, str]:
    """Return what the members of an ensemble are; nothing for other bundles."""
    from hilum.inference import ensemble

    return {name.lower(): value for name, value in ensemble.member_facts(manifest)}


def _recalibrations(manifest: Any) -> dict[str, str]:
    """Return what a recalibrated bundle was calibrated on, and which bundle its weights come from."""
    return {
        f"calibration {number}" if number > 1 else "calibration": "; ".join(
            (f"{record.summary}; of bundle {record.parent[:16]}", *record.cautions)
        )
        for number, record in enumerate(manifest.recalibrations, start=1)
    }


def _show_calibration(manifest: Any) -> None:
    """Show temperatures, intercepts where there are any, and thresholds."""
    from hilum.cli.terminal import show

    calibration = manifest.calibration
    if manifest.task.exclusive:
        row = [", ".join(manifest.findings), calibration.rule, f"{calibration.temperatures[0]:.3f}"]
        header = ["classes", "called", "temperature"]
        if calibration.intercepts:
            row.append(", ".join(f"{value:.3f}" for value in calibration.intercepts))
            header.append("intercepts")
        show([row], header=header, right=(2,))
        return
    rows = [
        [finding, f"{threshold:.3f}", f"{temperature:.3f}"]
        for finding, threshold, temperature in zip(
            manifest.findings, calibration.thresholds, calibration.temperatures, strict=True
        )
    ]
    header = ["finding", f"threshold ({calibration.rule})", "temperature"]
    if calibration.intercepts:
        header.append("intercept")
        rows = [[*row, f"{value:.3f}"] for row, value in zip(rows, calibration.intercepts, strict=True)]
    show(rows, header=header, right=(1, 2, 3))
