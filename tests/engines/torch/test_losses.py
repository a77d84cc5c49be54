import math

import pytest
import torch
from torch.nn import functional

from hilum.engines.torch.losses import make_loss
from hilum.recipe import load_recipe

ONES = torch.ones(3, 2)


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


def logits():
    return torch.tensor([[0.3, -1.0, 2.0], [2.0, 0.5, -3.0]])


def labels():
    return torch.tensor([[1.0, math.nan, 0.0], [0.0, 1.0, 1.0]])


def log_loss(logit, label):
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if label else 1 - probability)


def test_bce_ignores_unknown_labels_and_weighs_classes():
    weights = torch.tensor([[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]])

    total, count = of("bce")(logits(), labels(), weights)

    expected = (
        3 * log_loss(0.3, 1)
        + 11 * log_loss(2.0, 0)
        + 2 * log_loss(2.0, 0)
        + 7 * log_loss(0.5, 1)
        + 13 * log_loss(-3.0, 1)
    )
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert int(count) == 5


def test_unknown_labels_send_no_gradient():
    for loss in ("bce", "focal", "asymmetric"):
        outputs = logits().requires_grad_()
        of(loss)(outputs, labels(), ONES)[0].backward()

        assert float(outputs.grad[0, 1]) == 0
        assert bool((outputs.grad[~torch.isnan(labels())] != 0).all())


def test_focal_without_focus_is_bce_and_asymmetric_without_asymmetry_too():
    expected = of("bce")(logits(), labels(), ONES)[0]

    torch.testing.assert_close(of("focal", focal_gamma=0)(logits(), labels(), ONES)[0], expected)
    plain = of("asymmetric", gamma_negative=0, gamma_positive=0, negative_margin=0)
    torch.testing.assert_close(plain(logits(), labels(), ONES)[0], expected)


def test_focal_loss_of_one_label_by_its_formula():
    total, _ = of("focal", focal_gamma=2)(logits(), torch.tensor([[math.nan, 1.0, math.nan]] * 2), ONES)

    expected = sum((1 - 1 / (1 + math.exp(-x))) ** 2 * log_loss(x, 1) for x in (-1.0, 0.5))
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_asymmetric_loss_forgives_what_is_surely_absent():
    sure = torch.full((1, 3), -5.0).requires_grad_()

    total, _ = of("asymmetric")(sure, torch.zeros(1, 3), ONES)
    total.backward()

    assert float(total.detach()) == pytest.approx(0, abs=1e-7)
    assert bool(torch.isfinite(sure.grad).all())


def test_asymmetric_loss_of_an_absent_finding_by_its_formula():
    total, _ = of("asymmetric", gamma_negative=4, negative_margin=0.05)(
        torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[0.0, math.nan, math.nan]]), ONES
    )

    shifted = 1 / (1 + math.exp(-1.0)) - 0.05
    assert float(total) == pytest.approx(-math.log(1 - shifted) * shifted**4, rel=1e-5)


def test_softmax_is_cross_entropy_with_class_weights():
    truth = torch.tensor([2, 0])
    weights = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]])

    total, count = of("softmax", kind="multiclass")(logits(), functional.one_hot(truth, 3).float(), weights)

    expected = functional.cross_entropy(logits(), truth, reduction="none") * torch.tensor([5.0, 2.0])
    torch.testing.assert_close(total, expected.sum())
    assert int(count) == 2


def test_smoothing_of_classes_is_pytorchs():
    truth = torch.tensor([2, 0])

    total, _ = of("auto", kind="multiclass", smoothing=0.1)(
        logits(), functional.one_hot(truth, 3).float(), ONES
    )

    torch.testing.assert_close(
        total, functional.cross_entropy(logits(), truth, reduction="sum", label_smoothing=0.1)
    )


def test_smoothing_moves_sigmoid_targets_half_as_far():
    known = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])

    total, _ = of("bce", smoothing=0.2)(logits(), known, ONES)

    soft = known * 0.8 + 0.1
    expected = functional.binary_cross_entropy_with_logits(logits(), soft, reduction="sum")
    torch.testing.assert_close(total, expected)


def test_mixed_labels_weigh_both_classes():
    total, _ = of("bce")(torch.zeros(1, 3), torch.full((1, 3), 0.25), torch.tensor([[2.0, 4.0]] * 3))

    assert float(total) == pytest.approx(3 * (0.75 * 2 + 0.25 * 4) * math.log(2), rel=1e-6)
