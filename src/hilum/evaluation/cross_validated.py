"""A cross-validation's bundles and images -> an Evaluation: each image by the model that never saw its patient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hilum.bundle import Bundle, Calibration
from hilum.data.examples import Examples
from hilum.evaluation import cohort
from hilum.evaluation.cases import choose_cases, explain_cases
from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.facts import citations, facts, title
from hilum.evaluation.folds import Fold, Folds, main_metrics, order_folds
from hilum.evaluation.scoring import ScoredImages, ranking_notices
from hilum.evaluation.subgroups import take_rows
from hilum.inference import ensemble
from hilum.inference.explanation import Case
from hilum.inference.predictor import Predictor
from hilum.notices import Notice, notice
from hilum.progress import Watcher
from hilum.stats import ClassScores, Resampling, Scores

SPLIT = "out-of-fold"
COMMON_FACTS = (
    "Task",
    "Input",
    "Network",
    "Initial weights",
    "Views and ages in training",
    "Balance",
    "Versions",
)
"""Facts of a bundle that hold for all folds."""


@dataclass(frozen=True)
class Repeat:
    """One division into folds, with the model of each.

    Attributes:
        bundles: One a fold; the first was tested on fold 1.
        fold: int64 (rows of the table,): the fold in which a row was tested, 0 for none.
    """

    bundles: tuple[Bundle, ...]
    fold: np.ndarray

    @cached_property
    def calibration(self) -> Calibration:
        """Of all folds together: that of an ensemble of them."""
        return ensemble.mean([bundle.manifest.calibration for bundle in self.bundles])


@dataclass(frozen=True)
class _OutOfFold:
    """What a repeat predicts for the n rows that are in its folds, in the table's order; `logits` are (n, k)."""

    fold: np.ndarray
    logits: np.ndarray
    images: ScoredImages

    def score_fold(
        self, number: int, bundle: Bundle, resampling: Resampling
    ) -> tuple[ScoredImages, Scores | ClassScores]:
        """Score one fold at its own model's thresholds."""
        inside = np.flatnonzero(self.fold == number)
        images = replace(
            self.images,
            table=take_rows(self.images.table, inside),
            labels=self.images.labels[inside],
            probabilities=self.images.probabilities[inside],
            patients=self.images.patients[inside],
            decision=bundle.manifest.decision,
        )
        return images, images.score(resampling)


def evaluate(
    repeats: Sequence[Repeat],
    examples: Examples,
    *,
    notes: Sequence[str] = (),
    replicates: int,
    seed: int,
    watch: Watcher,
) -> list[Evaluation]:
    """Score out-of-fold predictions.

    Args:
        repeats: One or more, of the same recipe and table.
        examples: The table and its images.
        notes: What was left out of the table, a sentence each without its full stop.
        replicates: Bootstrap resamples of patients.
        seed: Of the resamples and of the choice of cases.
        watch: Receives the progress.

    Returns:
        One a repeat; the first has cases to look at. Each tells of the folds of all.
    """
    resampling = Resampling(replicates=replicates, seed=seed)
    predicted = [_predict(repeat, examples, number, watch) for number, repeat in enumerate(repeats, start=1)]
    watch.stage("Scoring", len(repeats))
    scored, rows = [], []
    for number, (repeat, out_of_fold) in enumerate(zip(repeats, predicted, strict=True), start=1):
        for fold, bundle in enumerate(repeat.bundles, start=1):
            images, scores = out_of_fold.score_fold(fold, bundle, resampling)
            rows.append(_row(images, scores, repeat=number, fold=fold))
        scores = out_of_fold.images.score(resampling)
        rows.append(_row(out_of_fold.images, scores, repeat=number, fold=0))
        scored.append(scores)
        watch.advance(number)
    folds = order_folds(rows, number=len(repeats[0].bundles), repeats=len(repeats))
    cases = _cases(repeats[0], predicted[0], seed, watch)
    warnings = tuple(_notices(examples, folds, scored[0], notes))
    return [
        replace(
            _evaluation(repeat, out_of_fold, scores, examples, folds, number),
            cases=cases if number == 1 else (),
            warnings=warnings,
        )
        for number, (repeat, out_of_fold, scores) in enumerate(
            zip(repeats, predicted, scored, strict=True), start=1
        )
    ]


def _predict(repeat: Repeat, examples: Examples, number: int, watch: Watcher) -> _OutOfFold:
    manifest, table = repeat.bundles[0].manifest, examples.table
    rows = np.flatnonzero(repeat.fold > 0)
    logits = np.zeros((len(rows), len(manifest.findings)), np.float32)
    probabilities = np.zeros(logits.shape)
    watch.stage(f"Out-of-fold predictions, repeat {number}", len(rows))
    done = 0
    for fold, bundle in enumerate(repeat.bundles, start=1):
        predictor = Predictor.load(bundle)
        inside = np.flatnonzero(repeat.fold[rows] == fold)
        outputs = cohort.run(
            predictor,
            examples,
            rows[inside],
            lambda count, _total, done=done: watch.advance(done + count, len(rows)),  # type: ignore[misc]
        )
        logits[inside], probabilities[inside] = outputs.logits, predictor.probabilities(outputs.logits)
        done += len(inside)
    images = ScoredImages(
        manifest.task,
        take_rows(table, rows),
        table.labels(manifest.findings)[rows],
        probabilities,
        table.patient_keys[rows],
        repeat.calibration.decision,
    )
    return _OutOfFold(repeat.fold[rows], logits, images)


def _row(images: ScoredImages, scores: Scores | ClassScores, *, repeat: int, fold: int) -> Fold:
    return Fold(repeat, fold, len(images.patients), len(np.unique(images.patients)), main_metrics(scores))


def _cases(repeat: Repeat, out_of_fold: _OutOfFold, seed: int, watch: Watcher) -> tuple[Case, ...]:
    """Explain cases, each by the model of its fold, and call them as all folds together do."""
    images, predictors = out_of_fold.images, dict[int, Predictor]()

    def predictor_of(row: int) -> Predictor:
        fold = int(out_of_fold.fold[row])
        if fold not in predictors:
            predictors[fold] = Predictor.load(repeat.bundles[fold - 1])
        return predictors[fold]

    chosen = choose_cases(images.labels, images.probabilities, images.decision, seed=seed)
    cases = []
    for case in explain_cases(chosen, images, predictor_of, watch=watch):
        threshold = images.decision.threshold(images.task.findings.index(case.finding))
        called = case.called if threshold is None else case.probability >= threshold
        cases.append(replace(case, threshold=threshold, called=called))
    return tuple(cases)


def _evaluation(
    repeat: Repeat,
    out_of_fold: _OutOfFold,
    scores: Scores | ClassScores,
    examples: Examples,
    folds: Folds,
    number: int,
) -> Evaluation:
    manifest, table, images = repeat.bundles[0].manifest, examples.table, out_of_fold.images
    outside = len(table) - len(images.labels)
    description = f"{folds.number} folds by patient, stratified, seed {manifest.recipe['split']['seed']}"
    if folds.repeats > 1:
        description += f", repeat {number} of {folds.repeats}"
    description += "; each image is scored by the model of the fold that it was held out of"
    if outside:
        description += f"; the source's own test of {outside:,} images is in no fold"
    return Evaluation(
        title=f"{title(manifest)}, cross-validated",
        bundle="",
        task=manifest.task,
        data=", ".join(source.name for source in table.sources),
        split=SPLIT,
        split_description=description,
        leaky=False,
        images=images.images,
        patients=images.patients,
        labels=images.labels,
        logits=out_of_fold.logits,
        probabilities=images.probabilities,
        decision=images.decision,
        scores=scores,
        facts=_facts(repeat),
        citations=citations(manifest, table),
        folds=folds,
        subgroups=images.subgroups(scores),
        bundles=tuple(bundle.hash for bundle in repeat.bundles),
    )


def _facts(repeat: Repeat) -> tuple[tuple[str, str], ...]:
    first = repeat.bundles[0]
    known: Mapping[str, str] = dict(facts(first.manifest, first.hash))
    trainings = [bundle.manifest.training for bundle in repeat.bundles]
    return (
        *((name, known[name]) for name in COMMON_FACTS if name in known),
        *(
            (
                f"Fold {number}",
                (
                    f"bundle {bundle.hash[:16]}: trained on {training.num_train:,} images, validation "
                    f"{training.num_val:,}, tested on {training.num_test:,}; epoch {training.best_epoch} of "
                    f"{training.epochs} ({training.stopped}), {training.seconds:,.0f} s"
                ),
            )
            for number, (bundle, training) in enumerate(zip(repeat.bundles, trainings, strict=True), start=1)
        ),
    )


def _notices(
    examples: Examples, folds: Folds, scores: Scores | ClassScores, notes: Sequence[str]
) -> Iterator[Notice]:
    """Yield what a reader must know before any figure."""
    if folds.comparable:
        yield from ranking_notices(scores)
    else:
        yield notice(
            "folds-not-comparable",
            together=folds.mean_of_repeats("auroc"),
            single=folds.mean_of_folds("auroc"),
        )
    yield notice("cross-validated", models=folds.number)
    if "sensitivity" in folds.metrics:
        yield notice("one-threshold")
    if outside := len(examples.table) - folds.rows[-1].images:
        yield notice("test-in-no-fold", images=outside)
    if len(examples.quarantine):
        yield notice("images-in-no-fold", images=len(examples.quarantine))
    for note in notes:
        yield notice("rows-left-out", note=note)
    if any(source.name == "phantom" for source in examples.table.sources):
        yield notice("phantoms")
