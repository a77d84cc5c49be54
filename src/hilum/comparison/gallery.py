"""Models and the images in common -> Exhibits: images worth a look, each explained by every model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hilum.data.table import Table
from hilum.errors import ImageError
from hilum.inference.explanation import Case
from hilum.inference.predictor import Predictor
from hilum.progress import Watcher

GROUPS = ("disagree", "right", "wrong")
"""Some models are right and some wrong; all are right; all are wrong."""
NUMBERS = {"disagree": 3, "right": 2, "wrong": 2}
RULE = (
    "Chosen by rule. Disagreement and common errors: those made with most conviction, which is the distance of the "
    "probability from the threshold (of classes: the probability of the class called), summed over the surest right "
    "and the surest wrong model, or over all models. Common hits: at random. Images with and without the finding take "
    "turns."
)


@dataclass(frozen=True)
class Exhibit:
    """One image as all models see it.

    Attributes:
        group: Of `GROUPS`.
        image: Its name.
        finding: What is explained; of classes the true one.
        cases: One a model, in their order; all of the same picture. The evidence is scaled so that models with other
            grids and temperatures can be held against each other: at each place the calibrated logit that the model
            would give, biases aside, if all of the image were like that place.
        right: Whether each model is right.
        called: The class that each calls; of findings `present` or `absent`.
        factors: By what each model's evidence is scaled: the places of its map over its temperature.
    """

    group: str
    image: str
    finding: str
    cases: tuple[Case, ...]
    right: tuple[bool, ...]
    called: tuple[str, ...]
    factors: tuple[float, ...]


def exhibits(
    models: Sequence[Predictor],
    table: Table,
    places: np.ndarray,
    *,
    findings: tuple[str, ...],
    labels: np.ndarray,
    probabilities: Sequence[np.ndarray],
    seed: int,
    watch: Watcher,
) -> tuple[Exhibit, ...]:
    """Choose images by `RULE` and explain them.

    Args:
        models: Running.
        table: With the images in common.
        places: Rows of the table, (n,): where each of the images stands.
        findings: The k columns.
        labels: (n, k), NaN unknown.
        probabilities: (n, k) a model.
        seed: Of what is chosen at random.
        watch: Receives the progress.

    Raises:
        ImageError: An image cannot be read.
    """
    rules = [
        model.bundle.manifest.decision.select(
            [model.bundle.manifest.findings.index(name) for name in findings]
        )
        for model in models
    ]
    classes = rules[0].thresholds is None
    decisions = [rule.decide(p) for rule, p in zip(rules, probabilities, strict=True)]
    right = np.stack([one == (labels == 1) for one in decisions])
    if classes:
        right = np.broadcast_to(right.all(axis=2, keepdims=True), right.shape)
        conviction = np.stack([np.broadcast_to(p.max(axis=1, keepdims=True), p.shape) for p in probabilities])
    else:
        conviction = np.stack([abs(p - rule.array) for rule, p in zip(rules, probabilities, strict=True)])
    chosen = choose(labels, right, conviction, classes=classes, seed=seed)
    watch.stage("Explaining images", len(chosen))
    found = []
    for number, (group, index, column) in enumerate(chosen, start=1):
        row, finding = int(places[index]), findings[column]
        name = str(table.frame["image"].iloc[row])
        boxes = table.boxes[(table.boxes["image"] == name) & (table.boxes["finding"] == finding)]
        factors = tuple(_factor(model, finding) for model in models)
        cases = [
            model.explain(
                table.location(row),
                name=name,
                findings=(finding,),
                labels=(float(labels[index, column]),),
                boxes=boxes[["x", "y", "width", "height"]].to_numpy(float),
                truth=finding if classes else "",
            )[0]
            for model in models
        ]
        alike = tuple(
            replace(case, evidence=case.evidence * np.float32(factor))
            for case, factor in zip(cases, factors, strict=True)
        )
        called = tuple(
            findings[one[index].argmax()] if classes else ("present" if one[index, column] else "absent")
            for one in decisions
        )
        sides = tuple(map(bool, right[:, index, column]))
        found.append(Exhibit(group, name, finding, alike, sides, called, factors))
        watch.advance(number)
    return tuple(found)


def choose(
    labels: np.ndarray, right: np.ndarray, conviction: np.ndarray, *, classes: bool, seed: int
) -> list[tuple[str, int, int]]:
    """Choose images by `RULE`.

    Args:
        labels: (n, k), NaN unknown.
        right: bool (models, n, k): whether the decision is right.
        conviction: (models, n, k), not negative.
        classes: Whether exactly one class holds, of which only the true one is asked about.
        seed: Of what is chosen at random.

    Returns:
        Group, image and finding of each; no image twice.
    """
    asked = labels == 1 if classes else ~np.isnan(labels)
    some, every = right.any(axis=0), right.all(axis=0)
    surest = np.where(right, conviction, 0).max(axis=0) + np.where(right, 0, conviction).max(axis=0)
    orders = {
        "disagree": (asked & some & ~every, surest),
        "right": (asked & every, np.random.default_rng(seed).random(labels.shape)),
        "wrong": (asked & ~some, conviction.sum(axis=0)),
    }
    chosen: list[tuple[str, int, int]] = []
    for group, (among, order) in orders.items():
        seen = {image for _, image, _ in chosen}
        pairs = [pair for pair in np.argwhere(among).tolist() if pair[0] not in seen]
        pairs.sort(key=lambda pair: -order[tuple(pair)])
        taken: dict[int, int] = {}
        while pairs and len(taken) < NUMBERS[group]:
            # With the finding first, then without it, as long as there are both.
            wanted = 1 - len(taken) % 2
            image, column = next((pair for pair in pairs if labels[tuple(pair)] == wanted), pairs[0])
            taken[image] = column
            pairs = [pair for pair in pairs if pair[0] != image]
        chosen += [(group, image, column) for image, column in taken.items()]
    return chosen


def _factor(model: Predictor, finding: str) -> float:
    """Return by what a map is scaled for `Exhibit.cases`."""
    manifest, maps = model.bundle.manifest, model.bundle.golden.maps
    temperatures = manifest.calibration.temperatures
    temperature = temperatures[manifest.findings.index(finding) if len(temperatures) > 1 else 0]
    return float(maps.shape[1] * maps.shape[2] / temperature)


def unreadable(error: ImageError, table: Table) -> str:
    """Say why there are no maps, and what to do."""
    roots = ", ".join(str(source.root) for source in table.sources)
    return f"an image cannot be read ({error}); say where the images lie with --images DIR (they were in {roots})"
