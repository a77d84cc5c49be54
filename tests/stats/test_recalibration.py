import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings, strategies as st
from scipy.special import expit, softmax

from hilum import stats
from hilum.errors import UsageError


def binary(seed=0, *, slope=0.4, intercept=-1.0, number=400):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=number)
    return logits, (rng.random(number) < expit(slope * logits + intercept)).astype(float)


@pytest.mark.parametrize("slope", [0.1, 0.4, 3.0])
def test_slope_and_intercept_are_those_of_logistic_regression(slope):
    logits, labels = binary(slope=slope)

    (found,) = stats.recalibrate_findings(logits, labels, [1.0])

    expected = sm.Logit(labels, sm.add_constant(logits)).fit(disp=0).params
    assert (found.intercepts[0], 1 / found.temperature) == pytest.approx(tuple(expected), rel=1e-5)
    assert found.reason is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.2, 2), st.floats(-2, 2))
def test_the_mean_probability_becomes_the_prevalence(seed, slope, intercept):
    logits, labels = binary(seed, slope=slope, intercept=intercept)
    if labels.min() == labels.max():
        return

    (found,) = stats.recalibrate_findings(logits, labels, [1.0])

    probabilities = expit(logits / found.temperature + found.intercepts[0])
    assert probabilities.mean() == pytest.approx(labels.mean(), abs=1e-5)


def test_unknown_labels_are_left_out():
    logits, labels = binary()
    more = np.concatenate([logits, [50.0, -50.0]]), np.concatenate([labels, [np.nan, np.nan]])

    assert stats.recalibrate_findings(*more, [1.0]) == stats.recalibrate_findings(logits, labels, [1.0])


@pytest.mark.parametrize("slope", [-0.3, 0.02])
def test_the_sign_of_the_slope_is_that_of_the_fit_without_bounds(slope):
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=5, size=4000)
    labels = (rng.random(4000) < expit(slope * logits - 1)).astype(float)

    (found,) = stats.recalibrate_findings(logits, labels, [1.0])

    assert stats.falls(logits, labels) == (slope < 0)
    assert stats.falls(np.column_stack([-logits, logits]), np.column_stack([1 - labels, labels])) == (
        slope < 0
    )
    assert found.temperature == pytest.approx(20)
    assert (
        "no better than chance here, or the wrong way round"
        if slope < 0
        else "temperature is at its upper bound"
    ) in found.reason


def test_logits_that_fall_reach_the_bound_and_are_told():
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(float)

    (found,) = stats.recalibrate_findings(-3 * (labels - 0.5) + rng.normal(size=500), labels, [1.0])

    assert found.temperature == pytest.approx(20)
    assert "no better than chance here, or the wrong way round" in found.reason


def test_logits_that_never_err_keep_their_temperature():
    labels = np.repeat([0.0, 1.0], 30)
    logits = labels * 4 - 1 + np.linspace(0, 0.5, 60)

    (found,) = stats.recalibrate_findings(logits, labels, [1.7])

    assert found.temperature == pytest.approx(1.7)
    assert expit(logits / 1.7 + found.intercepts[0]).mean() == pytest.approx(0.5, abs=1e-5)
    assert "kept" in found.reason


def test_one_label_alone_is_refused():
    with pytest.raises(UsageError, match="one label only"):
        stats.recalibrate_findings(np.arange(5.0), np.ones(5), [1.0])


def test_classes_are_fitted_to_their_shares():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(3000, 3))
    truth = np.array([rng.choice(3, p=row) for row in softmax(0.5 * logits + [1, 0, -1], axis=1)])

    found = stats.recalibrate_classes(logits, truth, 1.0)

    assert found.temperature == pytest.approx(2, rel=0.1)
    assert found.intercepts == pytest.approx((1, 0, -1), abs=0.2)
    assert sum(found.intercepts) == pytest.approx(0, abs=1e-9)
    fitted = softmax(logits / found.temperature + np.array(found.intercepts), axis=1)
    np.testing.assert_allclose(fitted.mean(axis=0), np.bincount(truth) / len(truth), atol=1e-5)
    with pytest.raises(UsageError, match="each class"):
        stats.recalibrate_classes(logits, np.zeros(3000), 1.0)
