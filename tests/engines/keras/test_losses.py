import math

import numpy as np
import pytest
import tensorflow as tf

from hilum.engines.keras.losses import make_loss
from hilum.recipe import load_recipe

ONES = tf.ones((3, 2))
LOGITS = tf.constant([[0.3, -1.0, 2.0], [2.0, 0.5, -3.0]])
LABELS = tf.constant([[1.0, math.nan, 0.0], [0.0, 1.0, 1.0]])


def of(loss, *, kind="multilabel", smoothing=0.0, **settings):
    findings = ["No Finding", "Mass", "Nodule"] if kind == "multiclass" else ["Mass", "Nodule", "Edema"]
    changes = [f"train.{key}={value}" for key, value in settings.items()]
    return make_loss(
        load_recipe(
            "nih-multilabel",
            [f"task.kind={kind}", f"task.findings={findings}", f"train.loss={loss}", *changes],
        ),
        smoothing=smoothing,
    )


def log_loss(logit, label):
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if label else 1 - probability)


def test_bce_ignores_unknown_labels_and_weighs_classes():
    weights = tf.constant([[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]])

    total, count = of("bce")(LOGITS, LABELS, weights)

    expected = (
        3 * log_loss(0.3, 1)
        + 11 * log_loss(2.0, 0)
        + 2 * log_loss(2.0, 0)
        + 7 * log_loss(0.5, 1)
        + 13 * log_loss(-3.0, 1)
    )
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert float(count) == 5


@pytest.mark.parametrize("loss", ["bce", "focal", "asymmetric"])
def test_unknown_labels_send_no_gradient(loss):
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        total = of(loss)(LOGITS, LABELS, ONES)[0]
    gradient = tape.gradient(total, LOGITS).numpy()

    np.testing.assert_array_equal(gradient != 0, ~np.isnan(LABELS.numpy()))


def test_focal_without_focus_is_bce_and_asymmetric_without_asymmetry_too():
    expected = float(of("bce")(LOGITS, LABELS, ONES)[0])
    plain = of("asymmetric", gamma_negative=0, gamma_positive=0, negative_margin=0)

    assert float(of("focal", focal_gamma=0)(LOGITS, LABELS, ONES)[0]) == pytest.approx(expected, rel=1e-6)
    assert float(plain(LOGITS, LABELS, ONES)[0]) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_one_label_by_its_formula():
    labels = tf.constant([[math.nan, 1.0, math.nan]] * 2)

    total, _ = of("focal", focal_gamma=2)(LOGITS, labels, ONES)

    expected = sum((1 - 1 / (1 + math.exp(-x))) ** 2 * log_loss(x, 1) for x in (-1.0, 0.5))
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_asymmetric_loss_of_an_absent_finding_by_its_formula():
    total, _ = of("asymmetric", gamma_negative=4, negative_margin=0.05)(
        tf.constant([[1.0, 1.0, 1.0]]), tf.constant([[0.0, math.nan, math.nan]]), ONES
    )

    shifted = 1 / (1 + math.exp(-1.0)) - 0.05
    assert float(total) == pytest.approx(-math.log(1 - shifted) * shifted**4, rel=1e-5)


def test_asymmetric_loss_forgives_what_is_surely_absent():
    sure = tf.fill((1, 3), -5.0)

    with tf.GradientTape() as tape:
        tape.watch(sure)
        total, _ = of("asymmetric")(sure, tf.zeros((1, 3)), ONES)

    assert float(total) == pytest.approx(0, abs=1e-7)
    assert np.isfinite(tape.gradient(total, sure).numpy()).all()


def test_softmax_is_cross_entropy_with_class_weights_and_smoothing():
    labels = tf.one_hot([2, 0], 3)
    weights = tf.constant([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]])
    logarithms = LOGITS.numpy() - np.log(np.exp(LOGITS.numpy()).sum(1, keepdims=True))

    total, count = of("softmax", kind="multiclass", smoothing=0.1)(LOGITS, labels, weights)

    soft = labels.numpy() * 0.9 + 0.1 / 3
    assert float(total) == pytest.approx(-(soft * logarithms * [2, 3, 5]).sum(), rel=1e-5)
    assert float(count) == 2


def test_mixed_labels_weigh_both_classes():
    total, _ = of("bce")(tf.zeros((1, 3)), tf.fill((1, 3), 0.25), tf.constant([[2.0, 4.0]] * 3))

    assert float(total) == pytest.approx(3 * (0.75 * 2 + 0.25 * 4) * math.log(2), rel=1e-6)
