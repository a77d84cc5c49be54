import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from hilum.engines.validation import validation_figures


@given(
    hnp.arrays(np.float32, (40, 3), elements=st.sampled_from([0.0, 1.0, math.nan])),
    hnp.arrays(np.float32, (40, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
)
def test_figures_agree_with_scikit_learn(labels, logits):
    expected = []
    for truth, scores in zip(labels.T, logits.T, strict=True):
        known = ~np.isnan(truth)
        truth, scores = truth[known], scores[known]
        if len(np.unique(truth)) == 2:
            called = scores >= 0
            expected.append(
                {
                    "val_auroc": metrics.roc_auc_score(truth, scores),
                    "val_average_precision": metrics.average_precision_score(truth, scores),
                    "val_accuracy": metrics.accuracy_score(truth, called),
                    "val_precision": metrics.precision_score(truth, called, zero_division=0),
                    "val_recall": metrics.recall_score(truth, called),
                    "val_f1": metrics.f1_score(truth, called),
                }
            )

    found = validation_figures(labels, logits, multiclass=False)

    for name, value in found.items():
        if expected:
            assert value == pytest.approx(np.mean([row[name] for row in expected]), abs=1e-9)
        else:
            assert math.isnan(value)


def test_of_exclusive_classes_the_largest_logit_is_called():
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    logits = np.array([[-1, -2, -3], [5, 6, 7], [0, 1, 2], [-5, -5, -4]], np.float32)

    found = validation_figures(labels, logits, multiclass=True)

    assert found["val_accuracy"] == 0.75
    assert found["val_recall"] == pytest.approx((1 + 0 + 1) / 3)


def test_scores_that_are_no_numbers_give_no_figures():
    found = validation_figures(np.array([[0.0], [1.0]]), np.array([[math.nan], [0.0]]), multiclass=False)

    assert all(math.isnan(value) for value in found.values())
