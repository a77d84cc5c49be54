import logging

import numpy as np
import pytest
from scipy.special import softmax

from hilum import stats
from hilum.bundle import MOST_PROBABLE
from hilum.errors import TrainingError
from hilum.recipe import load_recipe
from hilum.training.calibration import calibrate, check_classes

CLASSES = load_recipe("kermany-subtype")
BINARY = load_recipe("kermany-densenet121")


def drawn(temperature, *, number=4000, classes=3, seed=0):
    """Logits that are too extreme by a known factor, and the classes they belong to, one-hot."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (number, classes))
    truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((number, 1))).argmax(axis=1)
    return temperature * logits, np.eye(classes, dtype=np.float32)[truth]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_one_temperature_of_all_classes_is_found_again(temperature):
    logits, labels = drawn(temperature)

    found = calibrate(CLASSES, logits, labels)

    assert found.temperatures == (pytest.approx(temperature, rel=0.08),)
    assert (found.link, found.thresholds, found.rule) == ("softmax", (), MOST_PROBABLE)


def test_classes_without_a_temperature_keep_their_logits():
    logits, labels = drawn(3.0)
    settings = load_recipe("kermany-subtype", ["calibrate.temperature=false"])

    found = calibrate(settings, logits, labels)

    np.testing.assert_allclose(found.probabilities(logits), softmax(logits, axis=1))


def test_a_temperature_that_cannot_be_fitted_is_said_in_the_log(caplog):
    logits, labels = drawn(1.0, number=4)

    with caplog.at_level(logging.INFO, "hilum"):
        found = calibrate(CLASSES, logits, labels)

    assert found.temperatures == (1.0,)
    assert "temperature: not fitted: 4 images, fewer than 10" in caplog.text


def test_a_finding_gets_its_temperature_and_threshold():
    logits, labels = drawn(2.0, classes=2)
    logits, labels = logits[:, 1:] - logits[:, :1], labels[:, 1:]

    found = calibrate(BINARY, logits, labels)

    (threshold,) = stats.choose_thresholds(labels, found.probabilities(logits))
    assert found.link == "sigmoid"
    assert found.temperatures == (pytest.approx(2.0, rel=0.08),)
    assert found.thresholds == (threshold.value,)
    assert found.rule == "Youden's J on validation"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("calibrate.threshold=fixed", "fixed at 0.5"),
        ("calibrate.threshold=sensitivity", "sensitivity 0.95 on validation"),
    ],
)
def test_the_rule_of_the_recipe_is_followed_and_named(change, rule):
    logits, labels = drawn(1.0, classes=2)
    logits, labels = logits[:, 1:] - logits[:, :1], labels[:, 1:]

    found = calibrate(load_recipe("kermany-densenet121", [change]), logits, labels)

    called = found.decision.decide(found.probabilities(logits))
    assert found.rule == rule
    assert found.thresholds == (0.5,) or called[labels == 1].mean() == pytest.approx(0.95, abs=0.001)


def test_every_class_needs_training_images():
    labels = np.eye(3, dtype=np.float32)[[0, 0, 2]]

    check_classes(labels[:, [0, 2]], ("A", "C"), "multiclass")
    with pytest.raises(TrainingError, match="B has 0 training images; each class needs some"):
        check_classes(labels, ("A", "B", "C"), "multiclass")


def test_one_finding_needs_both_classes():
    with pytest.raises(TrainingError, match="A has 0 positive and 2 negative training images"):
        check_classes(np.array([[0.0], [0.0], [np.nan]]), ("A",), "binary")


def test_a_finding_among_several_that_cannot_be_learned_is_said_in_the_log(caplog):
    labels = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, np.nan]])

    with caplog.at_level(logging.WARNING, "hilum"):
        check_classes(labels, ("A", "B"), "multilabel")

    assert [record.getMessage().split(" has ")[0] for record in caplog.records] == ["B"]
    with pytest.raises(TrainingError, match="A has 0 positive"):
        check_classes(np.zeros((3, 2)), ("A", "B"), "multilabel")
