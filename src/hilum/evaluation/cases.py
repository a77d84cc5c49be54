"""Scored images -> Cases to look at: some right calls, and the wrong calls made with most conviction."""

from collections.abc import Callable, Sequence

import numpy as np

from hilum.bundle import DecisionRule
from hilum.evaluation.scoring import ScoredImages
from hilum.inference.explanation import Case
from hilum.inference.predictor import Predictor
from hilum.progress import Watcher

CASES_EACH = 3


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


def explain_cases(
    chosen: Sequence[tuple[int, int]],
    scored: ScoredImages,
    predictor_of: Callable[[int], Predictor],
    *,
    watch: Watcher,
) -> tuple[Case, ...]:
    """Explain what `choose_cases` chose.

    Args:
        chosen: Pairs of row and column.
        scored: The images that were scored.
        predictor_of: Gives the model that a row is explained by.
        watch: Told of each case.
    """
    watch.stage("Explaining cases", len(chosen))
    cases: list[Case] = []
    for number, (row, column) in enumerate(chosen, start=1):
        cases += explain_row(predictor_of(row), scored, row, column)
        watch.advance(number)
    return tuple(cases)


def explain_row(predictor: Predictor, scored: ScoredImages, row: int, column: int) -> list[Case]:
    """Explain one finding of one of the scored images."""
    table, findings, labels = scored.table, scored.task.findings, scored.labels[row]
    image, finding = str(table.frame["image"].iloc[row]), findings[column]
    boxes = table.boxes[(table.boxes["image"] == image) & (table.boxes["finding"] == finding)]
    return predictor.explain(
        table.location(row),
        name=image,
        findings=(finding,),
        labels=(float(labels[column]),),
        boxes=boxes[["x", "y", "width", "height"]].to_numpy(float),
        truth=findings[int(labels.argmax())] if scored.task.exclusive else "",
    )


def _one_an_image(pairs: np.ndarray, number: int) -> list[tuple[int, int]]:
    """Return the first pairs (image, finding), at most one an image and, with enough findings, one a finding."""
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
