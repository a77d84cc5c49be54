"""A bundle and labelled radiographs -> an Evaluation: predictions, scores with intervals, and cases to look at."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hilum.bundle import DecisionRule, Manifest
from hilum.data.examples import answering
from hilum.data.mapping import Mapped, map_findings
from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.evaluation import cohort
from hilum.evaluation.cohort import Part
from hilum.evaluation.external import External, compare, report_of, score, unseen, warnings
from hilum.evaluation.folds import Folds
from hilum.evaluation.subgroups import Subgroups, chosen, subgroups
from hilum.inference import ensemble
from hilum.inference.explanation import Case
from hilum.inference.predictor import Predictor
from hilum.progress import Silent, Watcher, count
from hilum.recipe import Recipe, Task, parse_recipe
from hilum.stats import ClassScores, Scores

FORMAT = 1
LEDGER = "test_reads.jsonl"
SPLITS = ("train", "val", "test", "all")
CASES_EACH = 3


@dataclass(frozen=True)
class Evaluation:
    """All that a report tells about one bundle on one set of images.

    Attributes:
        title: The run's or recipe's name.
        bundle: The bundle's hash, 64 hexadecimal digits; empty for predictions from elsewhere.
        task: The question; its k findings are the columns of `labels` and `probabilities`.
        data: The sources' names, for example `kermany`.
        split: Which part was evaluated, for example `test`, or `all`.
        split_description: How that part was made, in a sentence.
        leaky: Whether patients may stand on both sides of the split.
        images: The n images' names.
        patients: The n images' patients, str.
        labels: float32 (n, k), NaN unknown; of `multiclass` one 1 a row and else 0.
        logits: float32 (n, k), before calibration.
        probabilities: float64 (n, k) in [0, 1], calibrated; of `multiclass` rows sum to 1.
        decision: How the k findings are called.
        scores: Point estimates and intervals; of `multiclass` each class against the others, and accuracy.
        test_reads: How often this test split was evaluated in this run, this time included; 0 unknown.
        history: One row an epoch, or None: epoch, train_loss, val_loss, val_auroc, learning_rate, seconds.
        best_epoch: The epoch whose weights were kept, or None.
        cases: Images to look at.
        facts: What the model is and how it was trained, as (name, value) in reading order.
        warnings: What a reader must know before any number.
        citations: Of data and of initial weights.
        metrics: The content of metrics.json.
        external: Of data from elsewhere: what was not seen, and the comparison with the model's own test.
        folds: Of cross-validation: how its folds and repeats differ.
        subgroups: Figures by source, view, sex and age, and what metadata alone tell.
    """

    title: str
    bundle: str
    task: Task
    data: str
    split: str
    split_description: str
    leaky: bool
    images: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    decision: DecisionRule
    scores: Scores | ClassScores
    test_reads: int = 0
    history: pd.DataFrame | None = None
    best_epoch: int | None = None
    cases: tuple[Case, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    external: External | None = None
    folds: Folds | None = None
    subgroups: Subgroups | None = None

    @property
    def decisions(self) -> np.ndarray:
        """What was called, bool (n, k): from the threshold on, or the most probable class."""
        return self.decision.decide(self.probabilities)

    @property
    def findings(self) -> tuple[str, ...]:
        """The k columns of `labels` and `probabilities`."""
        return self.task.findings


@dataclass(frozen=True)
class Subject:
    """What is evaluated, on what.

    Attributes:
        model: Of the bundle.
        table: The images with their labels.
        run: The run's folder that the bundle lies in, None for a bundle alone.
        internal: Where the report of the model's own test lies, if somebody said.
    """

    model: Predictor
    table: Table
    run: Path | None
    internal: Path | None = None

    def output(self, evaluation: Evaluation | None = None, *, split: str = "test") -> Path:
        """Where the report goes if nobody says: nothing but a run's own test takes the place `RUN/evaluation`.

        Args:
            evaluation: What is reported; None where only `split` is known yet, and taken for a part of the own data.
            split: The part asked for.
        """
        split = evaluation.split if evaluation else split
        external = evaluation is not None and evaluation.external is not None
        bundle = self.model.bundle.folder
        name = "external" if external else "evaluation"
        folder = self.run / name if self.run else bundle.with_name(f"{bundle.name}-{name}")
        if external:
            folder /= re.sub(r"[^\w.-]+", "_", "-".join(source.name for source in self.table.sources))
        usual = ("test", "all") if external else ("test",)
        return folder if split in usual else folder.with_name(f"{folder.name}-{split}")


def subject(
    folder: Path,
    table: Table | None = None,
    *,
    expect: str | None = None,
    images: Path | None = None,
    internal: Path | None = None,
) -> Subject:
    """Load a run or a bundle, with the data to evaluate it on.

    Args:
        folder: A run's folder or a bundle.
        table: The data; a run's own if None.
        expect: The hash that the bundle must have, or its beginning.
        images: Where the images of a run's own data lie now, if they were moved.
        internal: Where the report of the model's own test lies, to compare with; the run's own if None.

    Raises:
        UsageError: There is no bundle, no data for one alone, or no report at `internal`.
        BundleError: The bundle is damaged.
    """
    model = Predictor.load(folder, expect=expect)
    found = model.bundle.folder
    run = found.parent if found.name == "bundle" and (found.parent / "recipe.toml").is_file() else None
    if table is None:
        stored = run / "table.parquet" if run else None
        if stored is None or not stored.is_file():
            raise UsageError(f"{folder} holds a bundle without a run's table; give the data with --data")
        table = Table.read(stored, images=images)
    return Subject(model, table, run, report_of(internal) if internal else None)


def evaluate(
    subject: Subject,
    *,
    split: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
    watch: Watcher | None = None,
) -> Evaluation:
    """Run a bundle on labelled radiographs and score it.

    On the data that it was trained on (their split has the bundle's hash) the part asked for is scored, or the test;
    images from elsewhere are all scored, or their source's own part of the name asked for, for the findings that they
    know, and are compared with the model's own test. A read of the test part is entered in the run's ledger.

    Args:
        subject: What is evaluated, on what.
        split: `train`, `val`, `test` or `all`; None as `parts.choose` has it.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples and of the choice of cases.
        watch: Told how it goes.

    Raises:
        UsageError: No such part, the table knows no finding of the model, or `internal` is no report of it.
        DataError: No image can be read, none has a label, one has two classes of `multiclass`, or all belong to
            patients who calibrated the bundle.
    """
    watch = watch or Silent()
    check_split(split)
    model, manifest = subject.model, subject.model.bundle.manifest
    mapped = map_findings(subject.table, manifest.findings, all_needed=manifest.task.exclusive)
    task = manifest.task.of(mapped.findings)
    table = answering(mapped.table, task, watch=watch)
    left_out = table.notes[len(subject.table.notes) :]
    part = cohort.choose(table, model.bundle, split, watch=watch)
    frame = part.examples.table.frame.iloc[part.rows]
    labels = part.examples.table.labels(mapped.findings)[part.rows]
    columns = [manifest.findings.index(finding) for finding in mapped.findings]
    watch.stage("Running the model", len(part.rows))
    outputs = cohort.run(model, part.examples, part.rows, watch.advance)
    probabilities = model.probabilities(outputs.logits)[:, columns]
    decision = manifest.decision.select(columns)
    patients = part.examples.table.patient_keys[part.rows]
    watch.stage("Scoring")
    scores = score(
        task,
        labels,
        probabilities,
        patients,
        decision=decision,
        replicates=replicates,
        seed=seed,
    )
    external = None
    if not part.internal:
        external = External(
            origins=mapped.origins,
            missing=mapped.missing,
            unseen=unseen(frame, model.distance(outputs.embedding), manifest.seen),
            **compare(
                subject.internal or subject.run,
                model.bundle,
                scores,
                patients,
                images=frame["image"].to_numpy(str),
                findings=mapped.findings,
                optional=subject.internal is None,
                replicates=replicates,
                seed=seed,
            ),
        )
    divided = subgroups(
        chosen(part.examples.table, part.rows),
        labels,
        probabilities,
        decision=decision,
        patients=patients,
        scores=scores,
    )
    test_reads = _enter(subject, part.name) if part.internal else 0
    if external:
        left_out = (*left_out, *_trained_on(subject, patients))
    watched = _warnings(
        part, mapped, manifest, part.examples.quarantine, test_reads, notes=left_out, labels=labels
    )
    evaluation = Evaluation(
        title=title(manifest),
        bundle=model.bundle.hash,
        task=task,
        data=", ".join(source.name for source in part.examples.table.sources),
        split=part.name,
        split_description=part.description,
        leaky=part.internal and manifest.training.leaky,
        images=frame["image"].to_numpy(str),
        patients=patients,
        labels=labels,
        logits=outputs.logits[:, columns],
        probabilities=probabilities,
        decision=decision,
        scores=scores,
        test_reads=test_reads,
        history=_history(subject.run),
        best_epoch=manifest.training.best_epoch,
        cases=_cases(model, part, labels, probabilities, task, seed, watch),
        facts=facts(manifest, model.bundle.hash),
        warnings=(*watched, *(warnings(external) if external else ())),
        citations=citations(manifest, part.examples.table),
        metrics={
            "format": FORMAT,
            "bundle": model.bundle.hash,
            "data": ", ".join(source.name for source in part.examples.table.sources),
            "split": part.name,
            "split_description": part.description,
            "leaky": part.internal and manifest.training.leaky,
            "internal": part.internal,
            "test_reads": test_reads,
            "threshold_rule": decision.origin,
            "recalibrated": manifest.recalibrated.model_dump(mode="json") if manifest.recalibrated else None,
            "external": external.to_dict() if external else None,
            "subgroups": divided.to_dict(),
            **scores.to_dict(),
        },
        external=external,
        subgroups=divided,
    )
    watch.finish()
    return evaluation


def check_split(split: str | None) -> None:
    """Refuse what is given and not one of `SPLITS`."""
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split!r}: {', '.join(SPLITS)} expected")


def _enter(subject: Subject, split: str) -> int:
    """Enter a read of the test in the run's ledger; return how many there are of this split, 0 if not a test."""
    if subject.run is None or split not in ("test", "all"):
        return 0
    ledger, split_hash = subject.run / LEDGER, subject.model.bundle.manifest.training.split_hash
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": subject.model.bundle.hash,
        "split": split_hash,
    }
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return sum(f'"{split_hash}"' in line for line in lines)


def _history(run: Path | None) -> pd.DataFrame | None:
    path = run / "history.csv" if run else None
    return pd.read_csv(path) if path and path.is_file() else None


def _cases(
    model: Predictor,
    part: Part,
    labels: np.ndarray,
    probabilities: np.ndarray,
    task: Task,
    seed: int,
    watch: Watcher,
) -> tuple[Case, ...]:
    """Explain what `choose_cases` chose."""
    manifest = model.bundle.manifest
    decision = manifest.decision.select([manifest.findings.index(finding) for finding in task.findings])
    chosen = choose_cases(labels, probabilities, decision, seed=seed)
    watch.stage("Explaining cases", len(chosen))
    cases: list[Case] = []
    for number, (index, column) in enumerate(chosen, start=1):
        row = int(part.rows[index])
        cases += explain_row(model, part.examples.table, row, task.findings, labels[index], column)
        watch.advance(number)
    return tuple(cases)


def choose_cases(
    labels: np.ndarray, probabilities: np.ndarray, decision: DecisionRule, *, seed: int
) -> list[tuple[int, int]]:
    """Choose some right calls at random, and the wrong calls that were made with most conviction.

    Args:
        labels: (n, k), NaN unknown.
        probabilities: (n, k), calibrated.
        decision: How findings are called; the most probable class, where that is it, is what is explained.
        seed: Of the choice.

    Returns:
        Pairs of row and column.
    """
    classes = decision.thresholds is None
    called = decision.decide(probabilities)
    conviction = probabilities if classes else np.abs(probabilities - decision.array)
    rng = np.random.default_rng(seed)
    chosen: list[tuple[int, int]] = []
    kinds = ((1, True), (0, True)) if classes else ((1, True), (0, False), (0, True), (1, False))
    for truth, present in kinds:
        pairs = np.argwhere((labels == truth) & (called == present))
        pairs = rng.permutation(pairs)
        if present != bool(truth):
            pairs = pairs[np.argsort(-conviction[tuple(pairs.T)], kind="stable")]
        chosen += _one_an_image(pairs, 4 * CASES_EACH // len(kinds))
    return chosen


def explain_row(
    model: Predictor, table: Table, row: int, findings: Sequence[str], labels: np.ndarray, column: int
) -> list[Case]:
    """Explain one finding of a table's image; `labels` are the row's, one a finding."""
    image, finding = str(table.frame["image"].iloc[row]), findings[column]
    boxes = table.boxes[(table.boxes["image"] == image) & (table.boxes["finding"] == finding)]
    return model.explain(
        table.location(row),
        name=image,
        findings=(finding,),
        labels=(float(labels[column]),),
        boxes=boxes[["x", "y", "width", "height"]].to_numpy(float),
        truth=findings[int(labels.argmax())] if model.bundle.manifest.task.exclusive else "",
    )


def _one_an_image(pairs: np.ndarray, number: int) -> list[tuple[int, int]]:
    """The first pairs (image, finding), at most one an image and, where there are enough findings, one a finding."""
    first: dict[int, tuple[int, int]] = {}
    seen: set[int] = set()
    for index, column in pairs.tolist():
        if column not in seen and index not in first:
            first[index] = (index, column)
            seen.add(column)
    for index, column in pairs.tolist():
        first.setdefault(index, (index, column))
        if len(first) >= max(number, len(seen)):
            break
    return list(first.values())[:number]


def title(manifest: Manifest) -> str:
    """The recipe's name, and the network where the name says of none or of another; of an ensemble its networks."""
    architecture = manifest.training.architecture
    if manifest.members:
        whole = f"nsemble of {architecture}"
        return f"E{whole}" if manifest.name == "ensemble" else f"{manifest.name} (e{whole})"
    return manifest.name if architecture in manifest.name else f"{manifest.name} ({architecture})"


def facts(manifest: Manifest, bundle_hash: str) -> tuple[tuple[str, str], ...]:
    """What a report tells of a model, (name, value) in reading order; of an ensemble, of its members."""
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
        return (*first, whole, *ensemble.facts(manifest), seen_, *leaks, *recalibrated, *unfitted)
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


def _warnings(
    part: Part,
    mapped: Mapped,
    manifest: Manifest,
    quarantine: pd.DataFrame,
    test_reads: int,
    *,
    notes: tuple[str, ...],
    labels: np.ndarray,
) -> tuple[str, ...]:
    warnings = []
    if part.internal and manifest.training.leaky:
        found = "; ".join(manifest.training.leaks)
        warnings.append(
            f"The split is leaky, and training was told to go on: {found}. The figures flatter."
            if found
            else "The split is leaky: images of one patient may stand in training and in the test. The figures flatter."
        )
    if part.internal and part.name in ("train", "val", "all"):
        warnings.append(
            f"These figures include images that the model was trained or tuned on ({part.name}); they are no test."
        )
    if not part.internal:
        what = "calibration comes" if manifest.task.exclusive else "threshold and the calibration come"
        whose = manifest.recalibrated
        source = f"{whose.num_images:,} images of {whose.site}" if whose else "the training's validation"
        warnings.append(f"External data: the {what} from {source}.")
        if manifest.task.negatives == "no-finding" and not (labels == 0).any():
            warnings.append(
                f"None of these images is known to have none of {', '.join(mapped.table.findings)}, which are this "
                "model's negatives: nothing can be said of how it tells them apart."
            )
        if part.outside:
            trained = set(manifest.seen.sources) & {source.name for source in part.examples.table.sources}
            also = ", the training's own among them" if trained else ""
            warnings.append(
                f"Only the {part.name} part of this data set is scored; {part.outside:,} more labelled images "
                f"of it are left out (--split all scores them too{also})."
            )
    elif manifest.recalibrated:
        warnings.append(f"The bundle was {manifest.recalibrated.summary}.")
    if manifest.recalibrated:
        warnings += [f"Where it was recalibrated, {one}." for one in manifest.recalibrated.cautions]
    if part.left_out:
        warnings.append(
            f"{part.left_out:,} images of patients who calibrated this bundle are left out; "
            f"{len(part.rows):,} are scored."
        )
    if part.internal and part.name in ("test", "all") and not test_reads:
        warnings.append("The bundle stands outside its run: how often this test was read is not counted.")
    if test_reads > 1:
        warnings.append(
            f"This test split was evaluated {test_reads} times in this run; choices made between make it flatter."
        )
    if len(quarantine):
        warnings.append(f"Left out, since they could not be read: {count(len(quarantine), 'image')}.")
    warnings += [f"{note}." for note in notes]
    if manifest.data and any(source.name == "phantom" for source in manifest.data):
        warnings.append(
            "Trained on synthetic radiographs: it shows that the software works and nothing about patients."
        )
    return tuple(warnings)


def _trained_on(subject: Subject, patients: np.ndarray) -> tuple[str, ...]:
    """Say where data that are not the training's own may hold images or patients of the training."""
    names = {source.name for source in subject.table.sources} & set(
        subject.model.bundle.manifest.seen.sources
    )
    if not names:
        return ()
    stored = subject.run / "table.parquet" if subject.run else None
    if stored is None or not stored.is_file():
        return (
            f"a data set of the name {', '.join(names)} was trained on: images of its training may be among these",
        )
    table = Table.read(stored)
    tuned = table.patient_keys[np.isin(table.frame["split"].to_numpy(str), ("train", "val"))]
    known = int(np.isin(patients, tuned).sum())
    return (
        (f"{known:,} images are of patients that the model was trained or tuned on; they flatter",)
        if known
        else ()
    )


def citations(manifest: Manifest, table: Table) -> tuple[str, ...]:
    """Whom the data and the initial weights are owed to."""
    owed = (*manifest.data, *(source for one in manifest.recalibrations for source in one.data))
    trained_on = [f"{source.citation} ({source.terms})" for source in owed]
    lines = trained_on + [f"{source.citation} ({source.terms})" for source in table.sources]
    if manifest.training.initial_weights_citation:
        lines.append(
            f"{manifest.training.initial_weights_citation} ({manifest.training.initial_weights_licence})"
        )
    return tuple(dict.fromkeys(lines))
