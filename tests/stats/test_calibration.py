import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss

from hilum.errors import DataError, UsageError
from hilum.stats import choose_thresholds, sigmoid_temperatures, softmax_temperature
from hilum.stats.calibration import TEMPERATURE_BOUNDS


def overconfident(factor, *, size=4000, seed=0):
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=size) - 0.5
    return factor * logits, (rng.random(size) < expit(logits)).astype(float)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_recovers_the_factor(factor):
    logits, labels = overconfident(factor, size=20_000)
    (found,) = sigmoid_temperatures(logits, labels)
    assert found.reason is None
    assert found.value == pytest.approx(factor, rel=0.05)


def test_temperature_minimises_the_log_loss():
    logits, labels = overconfident(2.0)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    best = minimize_scalar(
        lambda t: log_loss(labels[known], expit(logits[known] / t)), bounds=(0.1, 10), options={"xatol": 1e-9}
    )
    assert sigmoid_temperatures(logits, labels)[0].value == pytest.approx(best.x, rel=1e-4)


def test_one_temperature_a_finding():
    pairs = [overconfident(factor, seed=seed) for seed, factor in enumerate((1.0, 4.0))]
    logits, labels = (np.column_stack(side) for side in zip(*pairs, strict=True))
    first, second = sigmoid_temperatures(logits, labels)
    assert second.value > 2 * first.value


def test_softmax_temperature_minimises_the_log_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 4))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    scaled = 2.5 * logits
    best = minimize_scalar(
        lambda t: -log_softmax(scaled / t, axis=1)[np.arange(3000), classes].mean(),
        bounds=(0.1, 10),
        options={"xatol": 1e-9},
    )
    found = softmax_temperature(scaled, classes)
    assert found.value == pytest.approx(best.x, rel=1e-4)
    assert found.value == pytest.approx(2.5, rel=0.1)


def test_separated_logits_keep_their_scale_and_say_so():
    logits = np.concatenate([np.full(20, 3.0), np.full(20, -3.0)])
    (found,) = sigmoid_temperatures(logits, (logits > 0).astype(float))
    assert found.value == 1
    assert "without end" in found.reason


def test_logits_that_say_the_contrary_stop_at_the_bound():
    logits = np.concatenate([np.full(20, 3.0), np.full(20, -3.0)])
    (found,) = sigmoid_temperatures(logits, (logits < 0).astype(float))
    assert found.value == TEMPERATURE_BOUNDS[1]
    assert "upper bound" in found.reason


def test_tiny_logits_stop_at_the_bound():
    logits, labels = overconfident(1e-3)
    (found,) = sigmoid_temperatures(logits, labels)
    assert found.value == TEMPERATURE_BOUNDS[0]
    assert "lower bound" in found.reason


@pytest.mark.parametrize(("positives", "reason"), [(0, "0 positives"), (3, "3 positives")])
def test_few_labels_leave_the_logits_alone(positives, reason):
    labels = np.zeros(100)
    labels[:positives] = 1
    (found,) = sigmoid_temperatures(np.linspace(-2, 2, 100), labels)
    assert found.value == 1
    assert reason in found.reason


def test_wrong_logits_are_refused():
    with pytest.raises(DataError, match="logit of image 1, column 0, is inf"):
        sigmoid_temperatures([0.0, np.inf], [0, 1])
    with pytest.raises(UsageError, match="3 classes for 2 rows"):
        softmax_temperature(np.zeros((2, 3)), [0, 1, 2])


def test_youden_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.3).astype(float)
    scores = np.round(expit(rng.normal(size=300) + labels), 2)
    (found,) = choose_thresholds(labels, scores)
    youden = {
        t: (scores[labels == 1] >= t).mean() + (scores[labels == 0] < t).mean() - 1 for t in np.unique(scores)
    }
    assert youden[found.value] == pytest.approx(max(youden.values()), abs=1e-12)
    assert found.sensitivity + found.specificity - 1 == pytest.approx(youden[found.value], abs=1e-12)


def test_among_equal_thresholds_youden_takes_the_most_sensitive():
    (found,) = choose_thresholds([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.8])
    assert found.value == 0.4
    assert found.sensitivity == 1


@pytest.mark.parametrize(("target", "expected"), [(0.5, 0.8), (0.75, 0.5), (0.76, 0.3), (1.0, 0.3)])
def test_given_sensitivity_takes_the_largest_threshold_that_reaches_it(target, expected):
    (found,) = choose_thresholds(
        [1, 1, 1, 1, 0, np.nan], [0.9, 0.8, 0.5, 0.3, 0.6, 0.99], rule="sensitivity", sensitivity=target
    )
    assert found.value == expected
    assert found.sensitivity >= target
    assert found.rule == f"sensitivity {target:g}"


def test_whole_counts_are_not_rounded_up():
    (found,) = choose_thresholds(
        np.ones(100), np.linspace(0.01, 1, 100), rule="sensitivity", sensitivity=0.29
    )
    assert found.sensitivity == pytest.approx(0.29)


def test_fixed_is_one_half():
    (found,) = choose_thresholds([0, 1], [0.2, 0.9], rule="fixed")
    assert found.value == 0.5
    assert found.reason is None


@pytest.mark.parametrize(
    ("labels", "rule", "reason"),
    [
        ([0, 0, 0], "youden", "0 positives"),
        ([1, 1, 1], "youden", "0 negatives"),
        ([0, 0, 0], "sensitivity", "0 positives"),
        ([1, 0, 0], "youden", "no threshold is better than chance"),
    ],
)
def test_a_rule_that_cannot_be_followed_falls_back_and_says_so(labels, rule, reason):
    (found,) = choose_thresholds(labels, [0.1, 0.2, 0.3], rule=rule)
    assert found.value == 0.5
    assert reason in found.reason


def test_wrong_rules_are_refused():
    with pytest.raises(UsageError, match=r"youden .did you mean it"):
        choose_thresholds([0, 1], [0.1, 0.2], rule="yuden")
    with pytest.raises(UsageError, match="sensitivity is 95"):
        choose_thresholds([0, 1], [0.1, 0.2], rule="sensitivity", sensitivity=95)
