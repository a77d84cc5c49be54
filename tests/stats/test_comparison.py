import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from hilum.errors import UsageError
from hilum.stats import Resampling, compare, evaluate, holm, summarise_seeds
from hilum.stats.comparison import mcnemar
from hilum.stats.delong import delong


def models(*, seed=0, gain=0.0, num_patients=200, num_findings=3):
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), 3)
    shape = (len(patients), num_findings)
    truth = rng.normal(size=shape) + rng.normal(size=(num_patients, num_findings))[patients]
    labels = (rng.random(shape) < 1 / (1 + np.exp(-truth + 0.5))).astype(float)
    first, second = truth + rng.normal(size=shape) + gain * labels, truth + rng.normal(size=shape)
    return labels, 1 / (1 + np.exp(-first)), 1 / (1 + np.exp(-second)), patients


def test_differences_are_first_minus_second():
    labels, first, second, patients = models(gain=0.5)
    found = compare(labels, first, second, resampling=Resampling(clusters=patients, replicates=200))
    one = (
        evaluate(labels, first, resampling=Resampling(clusters=patients, replicates=100))
        .findings["finding 2"]
        .metrics
    )
    two = (
        evaluate(labels, second, resampling=Resampling(clusters=patients, replicates=100))
        .findings["finding 2"]
        .metrics
    )
    for name, difference in found.findings["finding 2"].differences.items():
        assert difference.value == pytest.approx(one[name].value - two[name].value, abs=1e-12)
        if name != "ece":
            assert difference.low < difference.value < difference.high, name


def test_pairing_makes_the_difference_sharper_than_two_intervals():
    labels, first, second, patients = models()
    difference = (
        compare(labels, first, second, resampling=Resampling(clusters=patients))
        .findings["finding 1"]
        .differences["auroc"]
    )
    one = (
        evaluate(labels, first, resampling=Resampling(clusters=patients))
        .findings["finding 1"]
        .metrics["auroc"]
    )
    assert difference.high - difference.low < 1.2 * (one.high - one.low)


def test_a_better_model_is_found_and_an_equal_one_is_not():
    better = compare(*models(gain=1.5)[:3], resampling=Resampling(clusters=models()[3], replicates=300))
    equal = compare(*models(seed=1)[:3], resampling=Resampling(clusters=models()[3], replicates=300))
    assert all(one.delong_holm_p < 1e-4 for one in better.findings.values())
    assert all(one.differences["auroc"].low > 0 for one in better.findings.values())
    assert better.macro["auroc"].low > 0
    assert all(one.delong_holm_p > 0.05 for one in equal.findings.values())
    assert equal.macro["auroc"].low < 0 < equal.macro["auroc"].high


def test_delong_of_a_finding_is_the_paired_clustered_test():
    labels, first, second, patients = models()
    labels[:50, 0] = np.nan
    known = slice(50, None)
    expected = delong(
        labels[known, 0] == 1, np.column_stack([first[known, 0], second[known, 0]]), clusters=patients[known]
    )
    found = compare(labels, first, second, resampling=Resampling(clusters=patients, replicates=100)).findings[
        "finding 1"
    ]
    assert found.delong_p == pytest.approx(expected.difference(confidence=0.95)[3], abs=1e-12)


def test_a_model_against_itself_differs_by_nothing():
    labels, first, _, patients = models()
    found = compare(labels, first, first, resampling=Resampling(clusters=patients, replicates=100)).findings[
        "finding 1"
    ]
    assert found.differences["auroc"].value == 0
    assert found.differences["auroc"].reason == "no interval: every resample gives the same value"
    assert found.delong_p is None
    assert "no variance" in found.reason
    assert found.mcnemar.exact_p == found.mcnemar.clustered_p == 1


def test_absent_class_is_said():
    labels, first, second, patients = models()
    labels[:, 0] = 0
    labels[:, 1] = np.nan
    found = compare(labels, first, second, resampling=Resampling(clusters=patients, replicates=100))
    assert found.findings["finding 1"].delong_p is None
    assert "fewer than 2 patients" in found.findings["finding 1"].reason
    assert found.findings["finding 1"].differences["auroc"].value is None
    assert found.findings["finding 2"].mcnemar is None
    assert found.findings["finding 3"].delong_holm_p == found.findings["finding 3"].delong_p
    json.dumps(found.to_dict(), allow_nan=False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_whatever_the_set_a_difference_is_in_order_or_has_a_reason(seed, size, share):
    rng = np.random.default_rng(seed)
    labels = (rng.random((size, 2)) < share).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    first, second = rng.integers(0, 5, (2, size, 2)) / 4
    found = compare(
        labels, first, second, resampling=Resampling(clusters=rng.integers(0, size, size), replicates=100)
    )
    for differences in (found.macro, *(one.differences for one in found.findings.values())):
        for one in differences.values():
            assert one.reason if one.low is None else one.low < one.high
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("counts", [(3, 9), (12, 12), (0, 5), (40, 18)])
def test_mcnemar_is_statsmodels(counts):
    first_only, second_only = counts
    first = np.repeat([True, False, True, False], [first_only, second_only, 20, 7])
    second = np.repeat([False, True, True, False], [first_only, second_only, 20, 7])
    found = mcnemar(first, second)
    table = [[20, first_only], [second_only, 7]]
    exact = contingency_tables.mcnemar(table, exact=True)
    assert (found.first_only, found.second_only) == counts
    assert found.exact_p == pytest.approx(exact.pvalue, abs=1e-12)
    if first_only != second_only:  # statsmodels' correction takes 1 from a gap of 0, too
        corrected = contingency_tables.mcnemar(table, exact=False, correction=True)
        assert found.corrected_p == pytest.approx(corrected.pvalue, abs=1e-12)
    uncorrected = contingency_tables.mcnemar(table, exact=False, correction=False)
    assert found.clustered_p == pytest.approx(uncorrected.pvalue, abs=1e-12)


def test_copied_images_are_no_evidence_to_the_clustered_mcnemar():
    rng = np.random.default_rng(0)
    first, second = rng.random(60) < 0.7, rng.random(60) < 0.55
    once = mcnemar(first, second)
    copied = mcnemar(first.repeat(6), second.repeat(6), clusters=np.arange(60).repeat(6))
    assert copied.clustered_p == pytest.approx(once.clustered_p, abs=1e-12)
    assert copied.exact_p < once.exact_p


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(14) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_seeds_are_summarised():
    spread = summarise_seeds([0.81, 0.83, 0.82])
    assert (spread.mean, spread.standard_deviation) == pytest.approx((0.82, 0.01))
    assert (spread.low, spread.high, spread.count) == (0.81, 0.83, 3)
    assert summarise_seeds([0.8]).standard_deviation is None
    with pytest.raises(UsageError, match="one finite number"):
        summarise_seeds([0.8, np.nan])
