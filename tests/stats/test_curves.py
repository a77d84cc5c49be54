import numpy as np
import pytest
from sklearn import metrics as sk

from hilum.errors import UsageError
from hilum.stats import Resampling, precision_recall_curve, reliability_curve, roc_curve


def data(*, size=600, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < 0.3).astype(float)
    scores = np.round(1 / (1 + np.exp(-rng.normal(size=size) - 1.2 * labels)), 2)
    return labels, scores, np.arange(size) // 3


def test_roc_points_are_scikit_learns():
    labels, scores, patients = data()
    curve = roc_curve(labels, scores, clusters=patients, replicates=100)
    x, y, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose((curve.x, curve.y), (x, y), atol=1e-12)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_precision_recall_points_are_scikit_learns():
    labels, scores, patients = data()
    curve = precision_recall_curve(labels, scores, clusters=patients, replicates=100)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.x, recall[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y[1:], precision[::-1][1:], atol=1e-12)


@pytest.mark.parametrize("draw", [roc_curve, precision_recall_curve])
def test_band_surrounds_the_curve_and_repeats(draw):
    labels, scores, patients = data()
    curve = draw(labels, scores, clusters=patients, replicates=300)
    middle = (curve.grid > 0.1) & (curve.grid < 0.9)
    if draw is roc_curve:
        y = np.interp(curve.grid, curve.x, curve.y)
    else:
        y = curve.y[1:][np.searchsorted(curve.x[1:], curve.grid)]
    assert (curve.low[middle] < y[middle]).all()
    assert (curve.high[middle] > y[middle]).all()
    assert curve.low.min() >= 0
    assert curve.high.max() <= 1
    again = draw(labels, scores, clusters=patients, replicates=300)
    np.testing.assert_array_equal(curve.low, again.low)


def test_area_of_resampled_roc_agrees_with_the_auroc_interval():
    from hilum.stats import evaluate

    labels, scores, patients = data()
    band = roc_curve(labels, scores, clusters=patients, replicates=500)
    auroc = (
        evaluate(labels, scores, resampling=Resampling(clusters=patients))
        .findings["finding 1"]
        .metrics["auroc"]
    )
    assert np.trapezoid(band.low, band.grid) < auroc.low < auroc.high < np.trapezoid(band.high, band.grid)


def test_few_patients_have_a_curve_without_a_band():
    curve = roc_curve([0, 1, 1, 0], [0.1, 0.8, 0.3, 0.4])
    assert curve.low is None
    assert "2 patients" in curve.reason
    assert curve.y[-1] == 1


@pytest.mark.parametrize("draw", [roc_curve, precision_recall_curve])
def test_one_class_has_no_curve(draw):
    curve = draw([0, 0, np.nan], [0.1, 0.8, 0.3])
    assert len(curve.x) == 0
    assert curve.reason == "not estimable: 0 positives"


def test_a_curve_is_of_one_finding():
    with pytest.raises(UsageError, match="one at a time"):
        roc_curve([[0, 1]], [[0.1, 0.2]])


def test_reliability_bins_hold_equally_many():
    rng = np.random.default_rng(1)
    scores = rng.random(1000)
    labels = (rng.random(1000) < scores).astype(float)
    curve = reliability_curve(labels, scores)
    assert curve.counts.tolist() == [100] * 10
    assert (curve.low <= curve.observed).all()
    assert (curve.observed <= curve.high).all()
    assert ((curve.low < curve.predicted) & (curve.predicted < curve.high)).sum() >= 8


def test_tied_probabilities_share_a_reliability_bin():
    curve = reliability_curve([0, 1, 0, 1, 1, 1], [0.2, 0.2, 0.2, 0.2, 0.7, 0.7], num_bins=3)
    assert curve.predicted == pytest.approx([0.2, 0.7])
    assert curve.observed == pytest.approx([0.5, 1.0])


def test_no_label_no_bins():
    assert len(reliability_curve([np.nan], [0.3]).counts) == 0
