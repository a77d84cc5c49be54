import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from hilum.stats.intervals import (
    bca,
    clustered_wilson,
    expansion,
    leave_out,
    logit_normal,
    percentile,
    resamples,
    wilson,
)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(counts):
    successes, trials = counts
    expected = proportion_confint(successes, trials, alpha=0.05, method="wilson")
    assert wilson(successes, trials, confidence=0.95) == pytest.approx(expected, abs=1e-12)


def test_clustered_wilson_of_single_images_is_wilson_but_for_t():
    successes = np.zeros(5000)
    successes[:1300] = 1
    low, high = clustered_wilson(successes, np.ones(5000), confidence=0.95)
    assert (low, high) == pytest.approx(wilson(1300, 5000, confidence=0.95), abs=1e-4)


def test_copies_of_an_image_are_worth_one():
    successes = np.repeat([0.0, 1.0], [60, 40])
    once = clustered_wilson(successes, np.ones(100), confidence=0.95)
    tenfold = clustered_wilson(10 * successes, np.full(100, 10.0), confidence=0.95)
    assert tenfold == pytest.approx(once, abs=1e-3)
    low, high = wilson(400, 1000, confidence=0.95)
    assert tenfold[1] - tenfold[0] > 2.5 * (high - low)


def test_at_the_ends_a_patient_is_worth_one_trial():
    low, high = clustered_wilson(np.full(12, 5.0), np.full(12, 5.0), confidence=0.95)
    assert high == 1
    quantile = stats.t.ppf(0.975, 11)
    assert low == pytest.approx(12 / (12 + quantile**2))


def test_resamples_repeat_and_do_not_depend_on_the_block():
    narrow = np.concatenate(list(resamples(17, replicates=50, seed=4, width=7)), axis=1)
    wide = np.concatenate(list(resamples(17, replicates=50, seed=4, width=50)), axis=1)
    np.testing.assert_array_equal(narrow, wide)
    assert (narrow.sum(axis=0) == 17).all()
    assert (narrow != np.concatenate(list(resamples(17, replicates=50, seed=5, width=7)), axis=1)).any()


def test_leave_out_drops_each_patient_once():
    blocks = np.concatenate(list(leave_out(9, groups=9, seed=0, width=4)), axis=1)
    assert ((1 - blocks).sum(axis=0) == 1).all()
    assert ((1 - blocks).sum(axis=1) == 1).all()


def test_leave_out_in_groups_drops_each_patient_once():
    blocks = np.concatenate(list(leave_out(25, groups=6, seed=0, width=4)), axis=1)
    assert ((1 - blocks).sum(axis=1) == 1).all()
    assert set((1 - blocks).sum(axis=0)) == {4.0, 5.0}


@pytest.mark.parametrize("statistic", [np.mean, np.var])
def test_bca_and_percentile_are_scipys_on_the_same_replicates(statistic):
    sample = np.random.default_rng(1).exponential(size=40)
    jackknife = np.array([statistic(np.delete(sample, i)) for i in range(40)])
    for method in ("BCa", "percentile"):
        theirs = stats.bootstrap(
            (sample,), statistic, n_resamples=2000, method=method, rng=np.random.default_rng(9)
        )
        replicates = theirs.bootstrap_distribution
        value = np.asarray(statistic(sample))
        ours = (
            bca(value, replicates, jackknife, confidence=0.95)
            if method == "BCa"
            else percentile(replicates, confidence=0.95)
        )
        assert [float(end) for end in ours] == pytest.approx(list(theirs.confidence_interval), rel=1e-9), (
            method
        )


def test_bca_shifts_a_skewed_metric_away_from_percentile():
    rng = np.random.default_rng(0)
    sample = rng.exponential(size=30)
    replicates = sample[rng.integers(0, 30, (5000, 30))].mean(axis=1)
    jackknife = np.array([np.delete(sample, i).mean() for i in range(30)])
    low, high = bca(np.asarray(sample.mean()), replicates, jackknife, confidence=0.95)
    plain_low, plain_high = percentile(replicates, confidence=0.95)
    assert low > plain_low
    assert high > plain_high


def test_expansion_fades_with_patients():
    assert expansion(10, confidence=0.95) == pytest.approx(stats.t.ppf(0.975, 9) * np.sqrt(10 / 9) / 1.959964)
    assert expansion(100_000, confidence=0.95) == pytest.approx(1, abs=1e-3)


def test_widened_percentiles_are_those_of_hesterberg():
    replicates = np.random.default_rng(0).normal(size=2000)
    spread = expansion(15, confidence=0.95)
    share = stats.norm.cdf(-stats.t.ppf(0.975, 14) * np.sqrt(15 / 14))
    low, high = percentile(replicates, confidence=0.95, spread=spread)
    assert (low, high) == pytest.approx((np.quantile(replicates, share), np.quantile(replicates, 1 - share)))


def test_logit_interval_stays_within_the_scale():
    replicates = np.random.default_rng(0).normal(0.97, 0.03, size=2000)
    low, high = logit_normal(np.asarray(0.97), replicates, confidence=0.95)
    assert 0 < low < 0.97 < high < 1


def test_replicates_without_a_value_are_left_out():
    replicates = np.concatenate([np.linspace(0, 1, 1001), [np.nan] * 20])
    assert percentile(replicates, confidence=0.9) == pytest.approx((0.05, 0.95))
