"""What needs no run: differences of decisions that are given, the choice of images, the clock."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.bundle import DecisionRule
from hilum.comparison import gallery, paired, speed
from hilum.comparison.compare import Compared
from hilum.evaluation.external import ACCURACY, MEAN
from hilum.images import Location
from hilum.progress import Silent
from hilum.recipe import InputSpec
from hilum.stats import Resampling
from hilum.stats.comparison import mcnemar

PATIENTS = np.array([f"s:{number // 2}" for number in range(120)])


def model(name, probabilities, thresholds):
    return Compared(
        name=name, folder=Path(), bundle="", engine="", architecture="", size=32, parameters=0, epochs=1, best_epoch=1,
        seconds=0.0, monitor="", history=None, tested=120, test_reads=0, probabilities=probabilities,
        decision=DecisionRule(tuple(thresholds) if len(thresholds) else None), figures={}, rate=None,
    )  # fmt: skip


def differences(first, second, labels, findings):
    return paired.corrected(
        paired.differences(
            first, second, labels, PATIENTS, findings=findings, resampling=Resampling(replicates=100)
        )
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_signs_turn_and_nothing_differs_from_itself(seed, classes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 120)
    labels = np.eye(3)[truth]
    cuts = np.zeros(0) if classes else np.full(3, 0.3)
    one, other = (
        model(name, rng.dirichlet(1 + 3 * labels.T[0:1].mean() + np.ones(3), 120), cuts) for name in "ab"
    )

    there = differences(one, other, labels, ("x", "y", "z"))
    back = differences(other, one, labels, ("x", "y", "z"))
    same = differences(one, one, labels, ("x", "y", "z"))

    for forth, turned, still in zip(there, back, same, strict=True):
        for name, estimate in forth.metrics.items():
            if estimate.value is not None:
                assert estimate.value == pytest.approx(-turned.metrics[name].value, abs=1e-12)
            assert still.metrics[name].value in (0, None)
        assert forth.delong_p == pytest.approx(turned.delong_p)
        assert still.delong_p == (None if still.finding == MEAN else 1)
        assert still.mcnemar is None or still.mcnemar.clustered_p == 1


def test_of_classes_the_share_put_right_is_compared():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 120)
    labels = np.eye(3)[truth]
    one, other = (
        model(n, rng.dirichlet(np.ones(3), 120) + w * labels, np.zeros(0))
        for n, w in (("a", 0.6), ("b", 0.1))
    )
    one, other = (
        model(m.name, m.probabilities / m.probabilities.sum(axis=1, keepdims=True), m.decision.array)
        for m in (one, other)
    )

    mean = differences(one, other, labels, ("x", "y", "z"))[-1]

    right = [m.probabilities.argmax(axis=1) == truth for m in (one, other)]
    assert mean.finding == MEAN
    assert mean.metrics[ACCURACY].value == pytest.approx(right[0].mean() - right[1].mean())
    assert mean.metrics[ACCURACY].low < mean.metrics[ACCURACY].value < mean.metrics[ACCURACY].high
    clusters = np.unique(PATIENTS, return_inverse=True)[1]
    assert mean.mcnemar == mcnemar(*right, clusters=clusters)
    pair = paired.pair(one, other, labels)
    assert (pair.first_only, pair.second_only) == (mean.mcnemar.first_only, mean.mcnemar.second_only)
    assert pair.kappa is None


def test_unknown_labels_take_no_part_in_who_is_right():
    labels = np.array([[1.0], [0.0], [np.nan]])
    one, other = (
        model(n, np.array([[p], [0.2], [0.9]]), np.array([0.5])) for n, p in (("a", 0.9), ("b", 0.1))
    )

    pair = paired.pair(one, other, labels)

    assert (pair.both_right, pair.first_only, pair.second_only, pair.both_wrong, pair.same) == (1, 1, 0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_images_are_chosen_by_the_rule(seed, models, classes):
    rng = np.random.default_rng(seed)
    labels = np.eye(4)[rng.integers(0, 4, 30)] if classes else rng.choice([0, 1, np.nan], (30, 4))
    right = rng.random((models, 30, 4)) < 0.6
    conviction = rng.random((models, 30, 4))

    chosen = gallery.choose(labels, right, conviction, classes=classes, seed=seed)

    assert len({image for _, image, _ in chosen}) == len(chosen)
    for group, image, finding in chosen:
        sides = right[:, image, finding]
        assert {"disagree": sides.any() and not sides.all(), "right": sides.all(), "wrong": not sides.any()}[
            group
        ]
        assert labels[image, finding] == 1 if classes else not np.isnan(labels[image, finding])


def test_the_surest_disagreement_comes_first():
    labels = np.ones((3, 1))
    right = np.array([[[1], [1], [1]], [[0], [0], [1]]], bool)
    conviction = np.array([[[0.1], [0.4], [0.5]], [[0.1], [0.4], [0.5]]])

    chosen = gallery.choose(labels, right, conviction, classes=False, seed=0)

    assert chosen == [("disagree", 1, 0), ("disagree", 0, 0), ("right", 2, 0)]


def test_rates_are_ratios_of_rounds(tmp_path):
    from PIL import Image

    Image.new("L", (40, 40), 90).save(tmp_path / "a.png")
    ticks = iter(np.cumsum([0.0, 1.0, 0.0, 2.0] * (speed.ROUNDS + 1)).tolist())
    slow = SimpleNamespace(
        bundle=SimpleNamespace(manifest=SimpleNamespace(input=InputSpec(size=32))),
        graph=SimpleNamespace(outputs=lambda squares: squares.shape),
    )

    first, second = speed.rates(
        [slow, slow], [Location(tmp_path / "a.png")] * 8, watch=Silent(), clock=lambda: next(ticks)
    )

    assert (first.images_a_second, first.ratio) == (8.0, 1.0)
    assert (second.images_a_second, second.ratio, second.low, second.high) == (4.0, 0.5, 0.5, 0.5)
