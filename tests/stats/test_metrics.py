import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from hilum.stats.metrics import METRICS, Tally, equal_mass_bins, weigh


@st.composite
def cases(draw):
    """Labels of both classes, tied probabilities, a threshold and patients."""
    size = draw(st.integers(2, 40))
    levels = draw(st.integers(1, 12))
    probabilities = np.array(draw(st.lists(st.integers(0, levels), min_size=size, max_size=size))) / levels
    present = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    present[:2] = (True, False)
    clusters = np.array(draw(st.lists(st.integers(0, 6), min_size=size, max_size=size)))
    weights = np.array(draw(st.lists(st.integers(0, 3), min_size=7, max_size=7)), dtype=float)
    return present, probabilities, draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])), clusters, weights


def tally(present, probabilities, threshold=0.5, *, clusters=None, num_clusters=None, **options):
    clusters = np.arange(len(present)) if clusters is None else clusters
    return Tally.of(
        present,
        probabilities,
        probabilities >= threshold,
        clusters=clusters,
        num_clusters=num_clusters or int(clusters.max()) + 1,
        **options,
    )


def values(one, weights=None):
    weights = np.ones((one.sums.shape[1], 1)) if weights is None else weights
    return dict(zip(METRICS, one.metrics(weights)[:, 0].tolist(), strict=True))


def scikit(present, probabilities, threshold):
    called = probabilities >= threshold
    return {
        "auroc": sk.roc_auc_score(present, probabilities),
        "average_precision": sk.average_precision_score(present, probabilities),
        "sensitivity": sk.recall_score(present, called),
        "specificity": sk.recall_score(~present, ~called),
        "f1": sk.f1_score(present, called, zero_division=0),
        "mcc": sk.matthews_corrcoef(present, called),
        "balanced_accuracy": sk.balanced_accuracy_score(present, called),
        "accuracy": sk.accuracy_score(present, called),
        "brier": sk.brier_score_loss(present, probabilities),
    }


@settings(max_examples=100, deadline=None)
@given(cases())
def test_values_are_scikit_learns_ties_included(case):
    present, probabilities, threshold, clusters, _ = case
    ours = values(tally(present, probabilities, threshold, clusters=clusters, num_clusters=7))
    for name, expected in scikit(present, probabilities, threshold).items():
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_weight_is_a_repeated_patient(case):
    present, probabilities, threshold, clusters, weights = case
    rows = np.repeat(np.arange(len(present)), weights[clusters].astype(int))
    ours = values(
        tally(present, probabilities, threshold, clusters=clusters, num_clusters=7), weights[:, None]
    )
    if len(set(present[rows])) < 2:
        assert np.isnan(ours["auroc"])
        assert np.isnan(ours["mcc"])
        assert np.isnan(ours["average_precision"])
        return
    for name, expected in scikit(present[rows], probabilities[rows], threshold).items():
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


def test_predictive_values_follow_bayes():
    present = np.array([True] * 4 + [False] * 8)
    probabilities = np.array([0.9, 0.8, 0.7, 0.1] + [0.6, 0.2] + [0.1] * 6)
    ours = values(tally(present, probabilities, prevalence=0.05))
    sensitivity, specificity = 3 / 4, 7 / 8
    assert ours["ppv"] == pytest.approx(3 / 4)
    assert ours["npv"] == pytest.approx(7 / 8)
    assert ours["ppv_at_prevalence"] == pytest.approx(
        sensitivity * 0.05 / (sensitivity * 0.05 + (1 - specificity) * 0.95)
    )
    assert ours["npv_at_prevalence"] == pytest.approx(
        specificity * 0.95 / (specificity * 0.95 + (1 - sensitivity) * 0.05)
    )


def test_predictive_value_at_the_sets_own_prevalence_is_the_plain_one():
    present, probabilities = simulated(300, seed=3)
    ours = values(tally(present, probabilities, 0.3, prevalence=present.mean()))
    assert ours["ppv_at_prevalence"] == pytest.approx(ours["ppv"], abs=1e-12)
    assert ours["npv_at_prevalence"] == pytest.approx(ours["npv"], abs=1e-12)


def test_calibration_slope_and_intercept_are_statsmodels():
    present, probabilities = simulated(400, seed=1)
    logits = np.log(probabilities / (1 - probabilities))
    ours = values(tally(present, probabilities))
    slope = sm.GLM(present, sm.add_constant(logits), family=sm.families.Binomial()).fit(tol=1e-14)
    intercept = sm.GLM(present, np.ones(400), offset=logits, family=sm.families.Binomial()).fit(tol=1e-14)
    assert ours["calibration_slope"] == pytest.approx(slope.params[1], abs=1e-9)
    assert ours["calibration_intercept"] == pytest.approx(intercept.params[0], abs=1e-9)


def test_resampled_slope_is_near_its_own_fit():
    present, probabilities = simulated(3000, seed=2)
    logits = np.log(probabilities / (1 - probabilities))
    weights = np.random.default_rng(0).multinomial(3000, np.full(3000, 1 / 3000), size=5).T.astype(float)
    stepped = tally(present, probabilities).metrics(weights)
    for column in range(5):
        family = sm.families.Binomial()
        fit = sm.GLM(present, sm.add_constant(logits), family=family, freq_weights=weights[:, column]).fit()
        assert stepped[METRICS.index("calibration_slope"), column] == pytest.approx(fit.params[1], abs=0.01)


@pytest.mark.parametrize("shift", [0.3, 0.9])
def test_far_off_probabilities_still_have_an_intercept(shift):
    present = np.random.default_rng(0).random(200) < shift
    ours = values(tally(present, np.full(200, 1e-6)))
    expected = np.log(present.mean() / (1 - present.mean())) - np.log(1e-6 / (1 - 1e-6))
    assert ours["calibration_intercept"] == pytest.approx(expected, abs=1e-8)
    assert np.isnan(ours["calibration_slope"])


def test_separated_classes_have_no_calibration_slope():
    ours = values(tally(np.array([True, True, False, False]), np.array([0.9, 0.8, 0.2, 0.1])))
    assert ours["auroc"] == 1
    assert np.isnan(ours["calibration_slope"])


def test_ece_is_the_mean_gap_over_equal_mass_bins():
    present, probabilities = simulated(1000, seed=4)
    order = np.argsort(probabilities)
    bins = np.array_split(order, 10)
    expected = sum(len(b) * abs(present[b].mean() - probabilities[b].mean()) for b in bins) / 1000
    assert values(tally(present, probabilities))["ece"] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(1, 12))
def test_equal_values_share_a_bin_and_bins_rise(numbers, num_bins):
    scores = np.array(numbers) / 8
    bins = equal_mass_bins(scores, num_bins=num_bins)
    assert bins.min() >= 0
    assert bins.max() < num_bins
    for value in scores:
        assert len(set(bins[scores == value])) == 1
    assert (np.diff(bins[np.argsort(scores, kind="stable")]) >= 0).all()


def test_blocks_do_not_change_the_values():
    present, probabilities = simulated(80, seed=5)
    one = tally(present, probabilities)
    weights = np.random.default_rng(0).integers(0, 4, (80, 9)).astype(float)
    whole = weigh([one], [weights])
    parts = weigh([one], [weights[:, :4], weights[:, 4:]])
    np.testing.assert_array_equal(whole, parts)


def simulated(size, *, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 1.5 - 0.5
    return rng.random(size) < 1 / (1 + np.exp(-0.7 * logits - 0.2)), 1 / (1 + np.exp(-logits))
