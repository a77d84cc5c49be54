import json

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from sklearn import metrics as sk

from hilum.errors import DataError, UsageError
from hilum.stats import METRICS, Resampling, confusion, evaluate, evaluate_classes
from hilum.stats.intervals import clustered_wilson


def clustered(*, num_patients=150, num_findings=3, seed=0):
    """Labels with gaps, probabilities with ties and patients of 1 to 6 images."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 7, num_patients))
    shape = (len(patients), num_findings)
    logits = rng.normal(size=(num_patients, num_findings))[patients] + rng.normal(size=shape) - 0.8
    labels = (rng.random(shape) < 1 / (1 + np.exp(-logits))).astype(float)
    labels[rng.random(shape) < 0.1] = np.nan
    return labels, np.round(1 / (1 + np.exp(-0.8 * logits)), 2), patients


LABELS, PROBABILITIES, PATIENTS = clustered()


def quick(labels=LABELS, probabilities=PROBABILITIES, **options):
    names = ("clusters", "replicates", "seed", "confidence", "method")
    given = {name: options.pop(name) for name in names if name in options}
    resampling = Resampling(**{"clusters": PATIENTS, "replicates": 200, **given})
    return evaluate(labels, probabilities, resampling=resampling, **options)


def test_values_are_scikit_learns_on_known_labels():
    scores = quick(thresholds=[0.3, 0.4, 0.5], findings=["a", "b", "c"])
    for column, (name, cut) in enumerate(zip("abc", (0.3, 0.4, 0.5), strict=True)):
        known = ~np.isnan(LABELS[:, column])
        truth, predicted = LABELS[known, column], PROBABILITIES[known, column]
        found = {metric: one.value for metric, one in scores.findings[name].metrics.items()}
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, predicted), abs=1e-12)
        assert found["average_precision"] == pytest.approx(
            sk.average_precision_score(truth, predicted), abs=1e-12
        )
        assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted >= cut), abs=1e-12)
        assert found["f1"] == pytest.approx(sk.f1_score(truth, predicted >= cut), abs=1e-12)
        assert found["brier"] == pytest.approx(sk.brier_score_loss(truth, predicted), abs=1e-12)
        assert scores.findings[name].unknown == (~known).sum()


def test_macro_is_the_mean_and_micro_the_pool():
    scores = quick()
    aurocs = [one.metrics["auroc"].value for one in scores.findings.values()]
    known = ~np.isnan(LABELS)
    assert scores.macro.metrics["auroc"].value == pytest.approx(np.mean(aurocs), abs=1e-12)
    pooled = sk.roc_auc_score(LABELS[known], PROBABILITIES[known])
    assert scores.micro.metrics["auroc"].value == pytest.approx(pooled, abs=1e-12)
    assert scores.macro.metrics["f1"].low < scores.macro.metrics["f1"].value < scores.macro.metrics["f1"].high


@pytest.mark.parametrize("method", ["recommended", "percentile", "bca"])
def test_every_metric_but_ece_has_an_interval_around_it(method):
    scores = quick(method=method, prevalence=0.05)
    for summary in (*scores.findings.values(), scores.macro, scores.micro):
        assert tuple(summary.metrics) == METRICS
        for name, one in summary.metrics.items():
            if name == "ece":
                assert one.low is None
                assert "inflates" in one.reason
            else:
                assert one.low < one.value < one.high, name
                assert one.method


def test_recommended_proportions_are_wilsons_over_patients():
    called = PROBABILITIES[:, 0] >= 0.5
    present = LABELS[:, 0] == 1
    successes = np.bincount(PATIENTS, weights=called & present)
    trials = np.bincount(PATIENTS, weights=present)
    one = quick().findings["finding 1"].metrics["sensitivity"]
    assert (one.low, one.high) == clustered_wilson(successes, trials, confidence=0.95)


def test_same_seed_same_numbers_and_another_seed_others():
    assert quick(seed=3).to_dict() == quick(seed=3).to_dict()
    assert quick(seed=3).macro.metrics["auroc"] != quick(seed=4).macro.metrics["auroc"]


def test_the_order_of_images_does_not_matter_to_values():
    order = np.random.default_rng(0).permutation(len(LABELS))
    one, other = quick(), quick(LABELS[order], PROBABILITIES[order], clusters=PATIENTS[order])
    for name in METRICS[:-2]:
        assert one.micro.metrics[name].value == pytest.approx(other.micro.metrics[name].value, abs=1e-9), name


def test_repeated_images_do_not_narrow_intervals():
    once = quick().findings["finding 1"].metrics
    twice = quick(LABELS.repeat(2, axis=0), PROBABILITIES.repeat(2, axis=0), clusters=PATIENTS.repeat(2))
    for name, one in twice.findings["finding 1"].metrics.items():
        if one.low is not None:
            assert one.high - one.low == pytest.approx(once[name].high - once[name].low, rel=0.02), name
    alone = quick(LABELS.repeat(2, axis=0), PROBABILITIES.repeat(2, axis=0), clusters=None)
    wide, narrow = once["auroc"], alone.findings["finding 1"].metrics["auroc"]
    assert narrow.high - narrow.low < 0.75 * (wide.high - wide.low)


def test_absent_class_is_none_with_the_reason():
    labels = LABELS.copy()
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, 0)
    scores = quick(labels)
    found = scores.findings["finding 2"].metrics
    for name in ("auroc", "average_precision", "sensitivity", "f1", "mcc", "balanced_accuracy"):
        assert found[name].value is None
        assert found[name].reason == "not estimable: 0 positives", name
    assert found["specificity"].low < found["specificity"].value <= found["specificity"].high
    assert scores.rare == ("finding 2",)
    assert scores.macro_without_rare.findings == ("finding 1", "finding 3")
    assert scores.macro_without_rare.metrics["auroc"].low is not None
    assert "2 of 3 findings that have a value" in scores.macro.metrics["auroc"].reason


def test_all_unknown_is_none_with_the_reason():
    found = (
        evaluate([np.nan] * 5, [0.1] * 5, resampling=Resampling(replicates=100)).findings["finding 1"].metrics
    )
    assert {one.reason for one in found.values()} == {"not estimable: 0 labelled images"}
    assert {one.value for one in found.values()} == {None}


@pytest.mark.parametrize(
    ("labels", "threshold", "metric", "reason"),
    [
        ([1, 1, 1, 1], 0.5, "auroc", "0 negatives"),
        ([1, 1, 1, 1], 0.5, "specificity", "0 negatives"),
        ([0, 1, 0, 1], 0.9, "ppv", "0 images called present"),
        ([0, 1, 0, 1], 0.0, "npv", "0 images called absent"),
        ([0, 0, 1, 1], 0.5, "calibration_slope", "separate the classes"),
    ],
)
def test_a_figure_without_a_meaning_says_why(labels, threshold, metric, reason):
    one = evaluate(labels, [0.1, 0.2, 0.6, 0.7], thresholds=threshold, resampling=Resampling(replicates=100))
    found = one.findings["finding 1"].metrics[metric]
    assert found.value is None
    assert reason in found.reason


def test_three_images_give_values_and_say_that_intervals_are_missing():
    found = (
        evaluate([0, 1, 1], [0.2, 0.4, 0.9], resampling=Resampling(replicates=100))
        .findings["finding 1"]
        .metrics
    )
    assert found["auroc"].value == 1
    assert found["auroc"].low is None
    assert found["auroc"].reason == "no interval: 1 image without the finding, fewer than 10"
    assert found["sensitivity"].value == 0.5
    assert found["sensitivity"].low < 0.02
    assert found["sensitivity"].high > 0.98
    assert found["specificity"].reason == "no interval: a single image counts here, fewer than 2"


def test_perfect_separation_has_no_interval():
    labels = np.repeat([0, 1], 30)
    found = (
        evaluate(labels, 0.2 + 0.6 * labels, resampling=Resampling(replicates=100))
        .findings["finding 1"]
        .metrics["auroc"]
    )
    assert found.value == 1
    assert found.low is None
    assert found.reason == "no interval: every resample gives the same value"


def test_dictionary_is_json_without_nan():
    scores = quick(prevalence=0.1, findings=["a", "b", "c"], level="patient (maximum)")
    again = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert again["level"] == "patient (maximum)"
    assert again["findings"]["b"]["auroc"].keys() == {"value", "low", "high", "method"}
    assert again["findings"]["b"]["threshold"] == 0.5
    assert again["macro"]["findings"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence is 95"),
        ({"replicates": 5}, "at least 100"),
        ({"prevalence": 5.0}, "prevalence is 5"),
        ({"method": "bac"}, "bca .did you mean it"),
        ({"thresholds": [0.1, 0.2]}, "one for each of 3 findings"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        quick(**options)


def test_confusion_counts_known_labels():
    table = confusion(LABELS, PROBABILITIES, thresholds=0.4)
    for column in range(3):
        known = ~np.isnan(LABELS[:, column])
        expected = sk.confusion_matrix(LABELS[known, column], PROBABILITIES[known, column] >= 0.4)
        np.testing.assert_array_equal(table[column], expected)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from(["recommended", "percentile", "bca"]),
)
@example(6311, 5, 0.1, "recommended")  # an MCC of 1 that rounds past it
def test_whatever_the_set_a_figure_is_in_range_or_has_a_reason(seed, size, share, method):
    rng = np.random.default_rng(seed)
    labels = (rng.random((size, 2)) < share).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    probabilities = rng.integers(0, 5, labels.shape) / 4
    scores = evaluate(
        labels,
        probabilities,
        prevalence=0.2,
        resampling=Resampling(clusters=rng.integers(0, size, size), replicates=100, method=method),
    )
    for summary in (*scores.findings.values(), scores.macro, scores.micro, scores.macro_without_rare):
        for name, one in summary.metrics.items():
            if one.value is None or one.low is None:
                assert one.reason
                assert one.low is None
                assert one.high is None
            else:
                assert one.low < one.high
            if one.value is not None and not name.startswith("calibration"):
                assert -1 <= one.value <= 1
    json.dumps(scores.to_dict(), allow_nan=False)


def classes(*, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=300, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(300, 3)) + 1.3 * np.eye(3)[truth]
    odds = np.exp(logits)
    return truth, odds / odds.sum(axis=1, keepdims=True), np.arange(300) // 2


def test_classes_are_scikit_learns():
    truth, predicted, patients = classes()
    scores = evaluate_classes(
        truth,
        predicted,
        names=["normal", "bacterial", "viral"],
        resampling=Resampling(clusters=patients, replicates=200),
    )
    called = predicted.argmax(axis=1)
    assert scores.accuracy.value == pytest.approx((truth == called).mean(), abs=1e-12)
    assert scores.accuracy.low < scores.accuracy.value < scores.accuracy.high
    np.testing.assert_array_equal(scores.confusion, sk.confusion_matrix(truth, called))
    macro = scores.classes.macro.metrics
    assert macro["auroc"].value == pytest.approx(
        sk.roc_auc_score(truth, predicted, multi_class="ovr"), abs=1e-12
    )
    assert macro["f1"].value == pytest.approx(sk.f1_score(truth, called, average="macro"), abs=1e-12)
    assert macro["sensitivity"].value == pytest.approx(sk.balanced_accuracy_score(truth, called), abs=1e-12)
    assert scores.classes.findings["viral"].threshold is None
    assert json.loads(json.dumps(scores.to_dict(), allow_nan=False))["confusion"] == scores.confusion.tolist()


@pytest.mark.parametrize(
    ("truth", "predicted", "error", "message"),
    [
        ([0, 1], [[0.5, 0.4], [0.5, 0.5]], DataError, r"image 0 sum to 0\.9"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], DataError, "class of image 1 is 2; expected 0 to 1"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], UsageError, "1 classes for 2 rows"),
        ([[0, 1]], [[0.5, 0.5]], UsageError, "2 columns"),
    ],
)
def test_wrong_classes_are_refused(truth, predicted, error, message):
    with pytest.raises(error, match=message):
        evaluate_classes(truth, predicted)


@pytest.mark.parametrize("prevalence_shift", [-2.9, -1.2])
def test_intervals_hold_the_truth_about_as_often_as_they_say(prevalence_shift):
    """A short form of benchmarks/coverage.py; the bounds are 4 standard errors of 100 sets."""
    rng = np.random.default_rng(5)

    def draw(num_patients):
        patients = np.repeat(np.arange(num_patients), rng.integers(1, 11, num_patients))
        logits = prevalence_shift + rng.normal(size=num_patients)[patients] + rng.normal(size=len(patients))
        return (
            (rng.random(len(patients)) < 1 / (1 + np.exp(-logits))) * 1.0,
            1 / (1 + np.exp(-logits)),
            patients,
        )

    labels, predicted, patients = draw(30_000)
    truth = (
        evaluate(labels, predicted, thresholds=0.2, resampling=Resampling(replicates=100))
        .findings["finding 1"]
        .metrics
    )
    held = dict.fromkeys(("auroc", "average_precision", "sensitivity", "specificity", "f1", "brier"), 0)
    for number in range(100):
        labels, predicted, patients = draw(100)
        found = (
            evaluate(
                labels,
                predicted,
                thresholds=0.2,
                resampling=Resampling(clusters=patients, replicates=300, seed=number),
            )
            .findings["finding 1"]
            .metrics
        )
        for name in held:
            held[name] += found[name].low <= truth[name].value <= found[name].high
    for name, count in held.items():
        assert count / 100 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 100), name
