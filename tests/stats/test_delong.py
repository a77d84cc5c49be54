import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score

from hilum.stats.delong import delong

# 43 complete patients of DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837-845), as printed in the SAS/STAT
# User's Guide, "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G score, indication.
OVARIAN = np.fromstring(
    """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
    3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
    2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
    3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
    3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
    3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
    """,
    sep=" ",
).reshape(-1, 4)
ALBUMIN, KG_SCORE, PROTEIN = 0, 1, 2
SCORES = np.column_stack([OVARIAN[:, 0], 10 - OVARIAN[:, 2], OVARIAN[:, 1]])
SURGERY = OVARIAN[:, 3] == 1


def naive(present, scores, clusters):
    """Placement values by comparing every pair, variances by Obuchowski's sums over patients."""
    positive, negative = scores[present], scores[~present]
    wins = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
    area = wins.mean(axis=(0, 1))
    placed_positive, placed_negative = wins.mean(axis=1), wins.mean(axis=0)
    names = np.unique(clusters)
    sums = []
    for placed, of in ((placed_positive, clusters[present]), (placed_negative, clusters[~present])):
        sums.append(np.array([(placed[of == name] - area).sum(axis=0) for name in names]))
    first, second = (len(np.unique(clusters[side])) for side in (present, ~present))
    m, n, total = present.sum(), (~present).sum(), len(names)
    return area, (
        first / (first - 1) * sums[0].T @ sums[0] / m**2
        + second / (second - 1) * sums[1].T @ sums[1] / n**2
        + total / (total - 1) * (sums[0].T @ sums[1] + sums[1].T @ sums[0]) / (m * n)
    )


def test_published_areas_and_standard_errors():
    areas = delong(SURGERY, SCORES)
    assert areas.values.round(4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.sqrt(np.diag(areas.covariance)).round(4).tolist() == [0.0927, 0.1028, 0.1000]


@pytest.mark.parametrize(
    ("test", "difference", "low", "high", "p_value"),
    [(ALBUMIN, 0.0108, -0.1761, 0.1976, 0.9102), (PROTEIN, -0.0780, -0.2830, 0.1271, 0.4561)],
)
def test_published_paired_differences(test, difference, low, high, p_value):
    found = delong(SURGERY, SCORES[:, [test, KG_SCORE]]).difference(confidence=0.95)
    assert [round(number, 4) for number in found] == [difference, low, high, p_value]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([2, 5, 100]))
def test_midranks_are_the_comparison_of_every_pair(seed, num_patients, levels):
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(num_patients).repeat(2), rng.integers(0, num_patients, 20)])
    present = np.concatenate([np.tile([True, False], num_patients), rng.random(20) < 0.4])
    scores = rng.integers(0, levels, (len(present), 2)) / levels
    area, covariance = naive(present, scores, clusters)
    ours = delong(present, scores, clusters=clusters)
    np.testing.assert_allclose(ours.values, area, atol=1e-12)
    np.testing.assert_allclose(ours.covariance, covariance, atol=1e-12)
    assert ours.values[0] == pytest.approx(roc_auc_score(present, scores[:, 0]), abs=1e-12)


def test_single_images_as_patients_change_nothing():
    alone = delong(SURGERY, SCORES, clusters=np.arange(len(SURGERY)))
    np.testing.assert_allclose(alone.covariance, delong(SURGERY, SCORES).covariance, atol=1e-15)


def test_copied_images_do_not_narrow_the_clustered_interval():
    patients = np.repeat(np.arange(len(SURGERY)), 5)
    copied = delong(SURGERY.repeat(5), SCORES.repeat(5, axis=0), clusters=patients)
    np.testing.assert_allclose(copied.covariance, delong(SURGERY, SCORES).covariance, atol=1e-12)


def test_equal_rankings_have_no_p_value():
    value, low, high, p_value = delong(SURGERY, SCORES[:, [0, 0]]).difference(confidence=0.95)
    assert value == low == high == 0
    assert np.isnan(p_value)


def test_interval_stays_within_the_scale():
    low, high = delong(np.repeat([True, False], 6), np.array([9, 8, 7, 6, 5, 3, 4, 2, 1, 1, 0, 0])).interval(
        confidence=0.95
    )
    assert 0 < low < 35 / 36 < high < 1
