"""A cross-validation's bundles and images -> an Evaluation: each image by the model that never saw its patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum.bundle import Bundle, DecisionRule
from hilum.data.examples import Examples
from hilum.evaluation import cohort, external, subgroups
from hilum.evaluation.evaluate import (
    FORMAT,
    Evaluation,
    choose_cases,
    citations,
    explain_row,
    facts,
    title,
)
from hilum.evaluation.folds import Fold, Folds, differing, figures
from hilum.inference import ensemble
from hilum.inference.explanation import Case
from hilum.inference.predictor import Predictor
from hilum.progress import Watcher
from hilum.stats import ClassScores, Scores

SPLIT = "out-of-fold"
TOLD = ("Task", "Input", "Network", "Initial weights", "Views and ages in training", "Balance", "Versions")
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


@dataclass(frozen=True)
class _Predicted:
    """What a repeat says of the n rows that are in its folds, in the table's order."""

    rows: np.ndarray
    fold: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


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
        watch: Told how it goes.

    Returns:
        One a repeat; the first has cases to look at. Each tells of the folds of all.
    """
    predicted = [_predict(repeat, examples, number, watch) for number, repeat in enumerate(repeats, start=1)]
    watch.stage("Scoring", len(repeats))
    scored, rows = [], []
    for number, (repeat, one) in enumerate(zip(repeats, predicted, strict=True), start=1):
        scorer = _Scorer(examples, repeat.bundles[0], replicates, seed)
        for fold, bundle in enumerate(repeat.bundles, start=1):
            inside = one.fold == fold
            scores = scorer.score(one, inside, bundle.manifest.decision)
            rows.append(scorer.row(one, inside, scores, repeat=number, fold=fold))
        everything = np.ones(len(one.rows), bool)
        scores = scorer.score(one, everything, _decision(repeat))
        rows.append(scorer.row(one, everything, scores, repeat=number, fold=0))
        scored.append(scores)
        watch.advance(number)
    folds = differing(rows, number=len(repeats[0].bundles), repeats=len(repeats))
    cases = _cases(repeats[0], predicted[0], examples, seed, watch)
    return [
        replace(
            _evaluation(repeat, one, scores, examples, folds, number),
            cases=cases if number == 1 else (),
            warnings=_warnings(examples, folds, notes),
        )
        for number, (repeat, one, scores) in enumerate(zip(repeats, predicted, scored, strict=True), start=1)
    ]


def _predict(repeat: Repeat, examples: Examples, number: int, watch: Watcher) -> _Predicted:
    rows = np.flatnonzero(repeat.fold > 0)
    shape = (len(rows), len(repeat.bundles[0].manifest.findings))
    logits, probabilities = np.zeros(shape, np.float32), np.zeros(shape)
    watch.stage(f"Out-of-fold predictions, repeat {number}", len(rows))
    done = 0
    for fold, bundle in enumerate(repeat.bundles, start=1):
        model = Predictor.load(bundle)
        inside = np.flatnonzero(repeat.fold[rows] == fold)
        found = cohort.run(
            model,
            examples,
            rows[inside],
            lambda count, done=done: watch.advance(done + count, len(rows)),  # type: ignore[misc]
        )
        logits[inside], probabilities[inside] = found.logits, model.probabilities(found.logits)
        done += len(inside)
    return _Predicted(rows, repeat.fold[rows], logits, probabilities)


def _decision(repeat: Repeat) -> DecisionRule:
    """Of all folds together: the rule of an ensemble of them."""
    return ensemble.mean([bundle.manifest.calibration for bundle in repeat.bundles]).decision


@dataclass(frozen=True)
class _Scorer:
    """Scores some of the rows."""

    examples: Examples
    bundle: Bundle
    replicates: int
    seed: int

    def score(self, one: _Predicted, inside: np.ndarray, decision: DecisionRule) -> Scores | ClassScores:
        manifest, table = self.bundle.manifest, self.examples.table
        rows = one.rows[inside]
        return external.score(
            manifest.task,
            table.labels(manifest.findings)[rows],
            one.probabilities[inside],
            table.patient_keys[rows],
            decision=decision,
            replicates=self.replicates,
            seed=self.seed,
        )

    def row(
        self, one: _Predicted, inside: np.ndarray, scores: Scores | ClassScores, *, repeat: int, fold: int
    ) -> Fold:
        patients = self.examples.table.patient_keys[one.rows[inside]]
        return Fold(repeat, fold, len(patients), len(np.unique(patients)), figures(scores))


def _cases(
    repeat: Repeat, one: _Predicted, examples: Examples, seed: int, watch: Watcher
) -> tuple[Case, ...]:
    """Cases to look at, each explained by the model of its fold."""
    findings, table = repeat.bundles[0].manifest.findings, examples.table
    labels = table.labels(findings)[one.rows]
    decision = _decision(repeat)
    chosen = choose_cases(labels, one.probabilities, decision, seed=seed)
    watch.stage("Explaining cases", len(chosen))
    models: dict[int, Predictor] = {}
    cases: list[Case] = []
    for number, (index, column) in enumerate(chosen, start=1):
        fold = int(one.fold[index])
        model = models.setdefault(fold, Predictor.load(repeat.bundles[fold - 1]))
        for case in explain_row(model, table, int(one.rows[index]), findings, labels[index], column):
            threshold = decision.threshold(column)
            called = case.called if threshold is None else case.probability >= threshold
            cases.append(replace(case, threshold=threshold, called=called))
        watch.advance(number)
    return tuple(cases)


def _evaluation(
    repeat: Repeat,
    one: _Predicted,
    scores: Scores | ClassScores,
    examples: Examples,
    folds: Folds,
    number: int,
) -> Evaluation:
    manifest, table = repeat.bundles[0].manifest, examples.table
    frame = table.frame.iloc[one.rows]
    data = ", ".join(source.name for source in table.sources)
    calibration = ensemble.mean([bundle.manifest.calibration for bundle in repeat.bundles])
    kept = len(table) - len(one.rows)
    description = f"{folds.number} folds by patient, stratified, seed {manifest.recipe['split']['seed']}"
    if folds.repeats > 1:
        description += f", repeat {number} of {folds.repeats}"
    patients = table.patient_keys[one.rows]
    labels = table.labels(manifest.findings)[one.rows]
    divided = subgroups.subgroups(
        subgroups.chosen(table, one.rows),
        labels,
        one.probabilities,
        decision=calibration.decision,
        patients=patients,
        scores=scores,
    )
    description += "; each image is scored by the model of the fold that it was held out of"
    if kept:
        description += f"; the source's own test of {kept:,} images is in no fold"
    return Evaluation(
        title=f"{title(manifest)}, cross-validated",
        bundle="",
        task=manifest.task,
        data=data,
        split=SPLIT,
        split_description=description,
        leaky=False,
        images=frame["image"].to_numpy(str),
        patients=patients,
        labels=labels,
        logits=one.logits,
        probabilities=one.probabilities,
        decision=calibration.decision,
        scores=scores,
        facts=_facts(repeat),
        citations=citations(manifest, table),
        metrics={
            "format": FORMAT,
            "bundle": "",
            "bundles": [bundle.hash for bundle in repeat.bundles],
            "data": data,
            "split": SPLIT,
            "split_description": description,
            "leaky": False,
            "internal": True,
            "test_reads": 0,
            "threshold_rule": calibration.rule,
            "folds": folds.to_dict(),
            "subgroups": divided.to_dict(),
            **scores.to_dict(),
        },
        folds=folds,
        subgroups=divided,
    )


def _facts(repeat: Repeat) -> tuple[tuple[str, str], ...]:
    first = repeat.bundles[0]
    known: Mapping[str, str] = dict(facts(first.manifest, first.hash))
    trainings = [bundle.manifest.training for bundle in repeat.bundles]
    return (
        *((name, known[name]) for name in TOLD if name in known),
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


def _warnings(examples: Examples, folds: Folds, notes: Sequence[str]) -> tuple[str, ...]:
    kept = len(examples.table) - folds.rows[-1].images
    first = (
        f"Cross-validation: {folds.number} models, each scored on the patients that it never saw. The figures tell "
        "what training by this recipe gives on these data; they are not those of one bundle, nor of the ensemble."
    )
    warnings = [first]
    if "sensitivity" in folds.metrics:
        warnings.append(
            "Decisions are at one threshold, the mean of the folds' on the logit scale; where a patient was in another "
            "fold's validation, it had a small share in it. By fold, each is at the threshold of its own model."
        )
    if kept:
        warnings.append(
            f"The source's own test of {kept:,} images is in no fold; no model was scored on it here."
        )
    if len(examples.quarantine):
        warnings.append(f"{len(examples.quarantine):,} images could not be read and are left out.")
    warnings += [f"{note}." for note in notes]
    if any(source.name == "phantom" for source in examples.table.sources):
        warnings.append("Synthetic radiographs: it shows that the software works and nothing about patients.")
    return tuple(warnings)
