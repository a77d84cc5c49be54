"""AUROC of parts of a set, and differences between parts that share patients."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.stats.delong import delong
from hilum.stats.strata import area, area_difference, mean_area


def simulated(seed, *, patients=60, images=4):
    """Patients with some images each, half of the score's variance shared within a patient."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    ill = rng.normal(size=patients)[clusters] + rng.normal(size=len(clusters)) > 0.5
    scores = rng.normal(size=patients)[clusters] + rng.normal(size=len(clusters)) + 1.2 * ill
    return ill, scores, clusters


def of(ill, scores, clusters, rows=slice(None)):
    return area(ill[rows], scores[rows], clusters=clusters[rows], num_clusters=int(clusters.max()) + 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_of_single_images_it_is_delong(seed):
    ill, scores, clusters = simulated(seed, images=1)

    found, expected = of(ill, scores, clusters), delong(ill, scores)

    assert found.value == pytest.approx(expected.values[0], abs=1e-12)
    assert found.variance == pytest.approx(expected.covariance[0, 0], rel=1e-9)


def test_of_several_images_a_patient_it_is_delong_but_for_the_widening_of_one_term():
    ill, scores, clusters = simulated(1, patients=400)

    found, expected = of(ill, scores, clusters), delong(ill, scores, clusters=clusters)

    assert found.value == pytest.approx(expected.values[0], abs=1e-12)
    assert found.variance == pytest.approx(expected.covariance[0, 0], rel=0.01)


def test_parts_without_a_common_patient_add_their_variances():
    ill, scores, clusters = simulated(2)
    first, second = (of(ill, scores, clusters, clusters % 2 == part) for part in (0, 1))

    found, p_value = area_difference(first, second)

    half = (found.high - found.low) / 2
    assert found.value == pytest.approx(first.value - second.value)
    assert half / np.sqrt(first.variance + second.variance) == pytest.approx(
        2.0, abs=0.06
    )  # t, about 60 degrees
    assert p_value is not None
    assert (p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_what_a_patient_does_to_both_parts_cancels():
    ill, scores, clusters = simulated(3)
    whole = of(ill, scores, clusters)

    found, p_value = area_difference(whole, of(ill, scores, clusters))

    assert (found.value, found.low, p_value) == (0, None, None)
    assert "no interval" in found.reason


def test_a_mean_knows_that_findings_share_their_patients():
    ill, scores, clusters = simulated(4)
    one = of(ill, scores, clusters)

    twice = mean_area([one, one])

    assert twice.value == one.value
    assert twice.variance == pytest.approx(one.variance)


def test_a_perfect_area_has_no_interval():
    ill = np.repeat([True, False], 20)

    found = area(ill, ill.astype(float), clusters=np.arange(40), num_clusters=40).estimate()

    assert (found.value, found.low) == (1, None)
    assert "without an error" in found.reason


def test_intervals_hold_where_patients_stand_in_both_parts():
    """The truth: both halves of a patient's images are drawn alike, so that there is no difference."""
    rng = np.random.default_rng(5)
    held = [0, 0]
    for seed in range(400):
        ill, scores, clusters = simulated(seed, patients=40)
        half = rng.random(len(ill)) < 0.4
        first, second = (of(ill, scores, clusters, rows) for rows in (half, ~half))
        found, _ = area_difference(first, second)
        held[0] += found.low <= 0 <= found.high
        estimate = of(ill, scores, clusters).estimate()
        held[1] += estimate.low <= 0.7273 <= estimate.high  # of 200,000 patients

    assert 0.92 < held[0] / 400 < 0.985
    assert 0.92 < held[1] / 400 < 0.985
