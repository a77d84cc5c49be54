"""A bundle and labelled radiographs -> an Evaluation: predictions, scores with intervals, and cases to look at."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hilum.data.examples import answering
from hilum.data.mapping import Mapped, map_findings
from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.evaluation import cohort
from hilum.evaluation.cases import choose_cases, explain_cases
from hilum.evaluation.cohort import Cohort
from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.external import compare_with_own_test, external_notices, find_report, unseen
from hilum.evaluation.facts import citations, facts, title
from hilum.evaluation.scoring import ScoredImages, ranking_notices
from hilum.evaluation.subgroups import take_rows
from hilum.inference.predictor import Predictor
from hilum.notices import Notice, notice
from hilum.progress import Silent, Watcher
from hilum.runs.folder import RunFolder
from hilum.runs.ledger import Ledger, Reads
from hilum.stats import Resampling

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Subject:
    """What is evaluated, on what.

    Attributes:
        predictor: Of the bundle.
        table: The images with their labels.
        run: The run that the bundle lies in, None for a bundle alone.
        internal: Where the report of the model's own test lies, if somebody said.
    """

    predictor: Predictor
    table: Table
    run: RunFolder | None
    internal: Path | None = None

    def output(self, evaluation: Evaluation | None = None, *, split: str = "test") -> Path:
        """Return where the report goes if nobody says: only a run's own test takes the place `RUN/evaluation`.

        Args:
            evaluation: What is reported; None where only `split` is known yet, and taken for a part of the own data.
            split: The part asked for.
        """
        split = evaluation.split if evaluation else split
        external = evaluation is not None and evaluation.external is not None
        bundle = self.predictor.bundle.folder
        if self.run:
            folder = self.run.external if external else self.run.evaluation
        else:
            folder = bundle.with_name(f"{bundle.name}-{'external' if external else 'evaluation'}")
        if external:
            folder /= re.sub(r"[^\w.-]+", "_", "-".join(source.name for source in self.table.sources))
        usual = ("test", "all") if external else ("test",)
        return folder if split in usual else folder.with_name(f"{folder.name}-{split}")


def subject(
    folder: Path | Predictor,
    table: Table | None = None,
    *,
    expect: str | None = None,
    images: Path | None = None,
    internal: Path | None = None,
) -> Subject:
    """Load a run or a bundle, with the data to evaluate it on.

    Args:
        folder: A run's folder or a bundle, or one that is loaded already.
        table: The data; a run's own if None.
        expect: The hash that the bundle must have, or its beginning.
        images: Where the images of a run's own data lie now, if they were moved.
        internal: Where the report of the model's own test lies, to compare with; the run's own if None.

    Raises:
        UsageError: There is no bundle, no data for one alone, or no report at `internal`.
        BundleError: The bundle is damaged.
    """
    predictor = folder if isinstance(folder, Predictor) else Predictor.load(folder, expect=expect)
    run = RunFolder.of_bundle(predictor.bundle.folder)
    if table is None:
        if run is None or not run.table.is_file():
            place = predictor.bundle.folder if isinstance(folder, Predictor) else folder
            raise UsageError(f"{place} holds a bundle without a run's table; give the data with --data")
        table = Table.read(run.table, images=images)
    return Subject(predictor, table, run, find_report(internal) if internal else None)


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
        split: `train`, `val`, `test` or `all`; None as `cohort.choose` has it.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples and of the choice of cases.
        watch: Receives the progress.

    Raises:
        UsageError: No such part, the table knows no finding of the model, or `internal` is no report of it.
        DataError: No image can be read, none has a label, one has two classes of `multiclass`, or all belong to
            patients who calibrated the bundle.
    """
    watch, resampling = watch or Silent(), Resampling(replicates=replicates, seed=seed)
    check_split(split)
    predictor, bundle, manifest = subject.predictor, subject.predictor.bundle, subject.predictor.manifest
    mapped = map_findings(subject.table, manifest.findings, all_needed=manifest.task.exclusive)
    task = manifest.task.of(mapped.findings)
    table = answering(mapped.table, task, watch=watch)
    chosen = cohort.choose(table, bundle, split, watch=watch)
    watch.stage("Running the model", len(chosen.rows))
    outputs = cohort.run(predictor, chosen.examples, chosen.rows, watch.advance)
    columns = [manifest.findings.index(finding) for finding in mapped.findings]
    scored = ScoredImages(
        task,
        take_rows(chosen.examples.table, chosen.rows),
        chosen.examples.table.labels(mapped.findings)[chosen.rows],
        predictor.probabilities(outputs.logits)[:, columns],
        chosen.examples.table.patient_keys[chosen.rows],
        manifest.decision.select(columns),
    )
    watch.stage("Scoring")
    scores = scored.score(resampling)
    external = None
    if not chosen.internal:
        external = compare_with_own_test(
            subject.internal or (subject.run.path if subject.run else None),
            bundle,
            scored,
            scores,
            mapped=mapped,
            unseen=unseen(scored.table.frame, predictor.distance(outputs.embedding), manifest.seen),
            optional=subject.internal is None,
            resampling=resampling,
        )
    divided = scored.subgroups(scores)
    reads = _enter(subject, chosen.name) if chosen.internal else Reads()
    rows_left_out = table.notes[len(subject.table.notes) :]
    cases = explain_cases(
        choose_cases(scored.labels, scored.probabilities, scored.decision, seed=seed),
        scored,
        lambda _row: predictor,
        watch=watch,
    )
    evaluation = Evaluation(
        title=title(manifest),
        bundle=bundle.hash,
        task=task,
        data=", ".join(source.name for source in chosen.examples.table.sources),
        split=chosen.name,
        split_description=chosen.description,
        leaky=chosen.internal and manifest.training.leaky,
        images=scored.images,
        patients=scored.patients,
        labels=scored.labels,
        logits=outputs.logits[:, columns],
        probabilities=scored.probabilities,
        decision=scored.decision,
        scores=scores,
        test_reads=reads.count,
        history=_history(subject.run),
        best_epoch=manifest.training.best_epoch,
        cases=cases,
        facts=facts(manifest, bundle.hash),
        warnings=(
            *ranking_notices(scores),
            *_notices(subject, chosen, mapped, scored, reads, rows_left_out),
            *(external_notices(external) if external else ()),
        ),
        citations=citations(manifest, chosen.examples.table),
        external=external,
        subgroups=divided,
        internal=chosen.internal,
        recalibrated=manifest.recalibrated,
    )
    watch.finish()
    return evaluation


def check_split(split: str | None) -> None:
    """Raise UsageError for what is given and not one of `SPLITS`."""
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split!r}: {', '.join(SPLITS)} expected")


def _enter(subject: Subject, split: str) -> Reads:
    """Enter a read of the test in the run's ledger; return those of this split, none if it is no test."""
    if subject.run is None or split not in ("test", "all"):
        return Reads()
    bundle = subject.predictor.bundle
    return Ledger(subject.run.ledger).enter(bundle=bundle.hash, split=bundle.manifest.training.split_hash)


def _history(run: RunFolder | None) -> pd.DataFrame | None:
    return pd.read_csv(run.history) if run and run.history.is_file() else None


def _notices(
    subject: Subject,
    chosen: Cohort,
    mapped: Mapped,
    scored: ScoredImages,
    reads: Reads,
    rows_left_out: Sequence[str],
) -> Iterator[Notice]:
    """Yield what a reader must know before any figure."""
    manifest = subject.predictor.manifest
    if chosen.internal:
        yield from _notices_of_own_data(chosen, subject)
    else:
        yield from _notices_of_external_data(chosen, subject, mapped, scored)
    for caution in manifest.recalibrated.cautions if manifest.recalibrated else ():
        yield notice("recalibration-caution", caution=caution)
    if chosen.left_out:
        yield notice("calibrating-patients-left-out", left_out=chosen.left_out, scored=len(chosen.rows))
    if chosen.internal and chosen.name in ("test", "all") and not reads.count:
        yield notice("test-reads-not-counted")
    if reads.not_kept and subject.run:
        yield notice("test-read-not-kept", ledger=str(subject.run.ledger), reason=reads.not_kept)
    if reads.count > 1:
        yield notice("test-read-again", reads=reads.count)
    if len(chosen.examples.quarantine):
        yield notice("images-unreadable", images=len(chosen.examples.quarantine))
    for note in rows_left_out:
        yield notice("rows-left-out", note=note)
    if not chosen.internal:
        yield from _trained_on(subject, scored.patients)
    if any(source.name == "phantom" for source in manifest.data):
        yield notice("trained-on-phantoms")


def _notices_of_own_data(chosen: Cohort, subject: Subject) -> Iterator[Notice]:
    manifest = subject.predictor.manifest
    if manifest.training.leaky:
        yield notice("leaky-split", leaks=list(manifest.training.leaks))
    if chosen.name in ("train", "val", "all"):
        yield notice("scored-on-training", part=chosen.name)
    if manifest.recalibrated:
        yield notice("recalibrated-bundle", summary=manifest.recalibrated.summary)


def _notices_of_external_data(
    chosen: Cohort, subject: Subject, mapped: Mapped, scored: ScoredImages
) -> Iterator[Notice]:
    manifest = subject.predictor.manifest
    recalibrated = manifest.recalibrated
    yield notice(
        "calibrated-elsewhere",
        thresholds=not manifest.task.exclusive,
        images=recalibrated.num_images if recalibrated else 0,
        site=recalibrated.site if recalibrated else "",
    )
    if manifest.task.negatives == "no-finding" and not (scored.labels == 0).any():
        yield notice("no-negatives", findings=list(mapped.table.findings))
    if chosen.outside:
        familiar = set(manifest.seen.sources) & {source.name for source in chosen.examples.table.sources}
        yield notice("part-scored", part=chosen.name, left_out=chosen.outside, familiar=bool(familiar))


def _trained_on(subject: Subject, patients: np.ndarray) -> Iterator[Notice]:
    """Tell where data that are not the training's own may hold images or patients of the training."""
    names = {source.name for source in subject.table.sources} & set(subject.predictor.manifest.seen.sources)
    if not names:
        return
    if subject.run is None or not subject.run.table.is_file():
        yield notice("source-trained-on", sources=sorted(names))
        return
    table = Table.read(subject.run.table)
    tuned = table.patient_keys[np.isin(table.frame["split"].to_numpy(str), ("train", "val"))]
    known = int(np.isin(patients, tuned).sum())
    if known:
        yield notice("patients-trained-on", images=known)
