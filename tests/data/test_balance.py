import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from hilum.data.balance import class_weights
from hilum.recipe import BalanceSettings


def test_agrees_with_scikit_learns_balanced_weights():
    labels = np.array([1, 0, 0, 0, 1, 0, np.nan], np.float32)[:, None]

    found = class_weights(labels, BalanceSettings(method="class-weights"))

    known = labels[~np.isnan(labels)]
    expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=known)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_a_finding_with_one_class_keeps_weights_of_one():
    labels = np.zeros((5, 1), np.float32)

    np.testing.assert_array_equal(class_weights(labels, BalanceSettings(method="class-weights")), [[1, 1]])


def test_none_is_ones():
    labels = np.array([[1.0], [0.0], [0.0]], np.float32)

    np.testing.assert_array_equal(class_weights(labels, BalanceSettings()), [[1, 1]])
