"""A recipe's loss: logits and labels -> the sum over what is known, and how much that is."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from hilum.recipe import Recipe, TrainSettings

Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def make_loss(recipe: Recipe, *, smoothing: float = 0.0) -> Loss:
    """Makes the loss of a recipe.

    Args:
        recipe: Its task and its train section are read.
        smoothing: How far labels move toward the middle.

    Returns:
        A function of logits (batch, outputs), labels (batch, outputs) from 0 to 1 with NaN for unknown, and class
        weights (outputs, 2) of absent and of present. It gives the sum of the losses of what is known, and the number
        of known labels (of rows for `multiclass`): the mean loss is their ratio, over whatever they are summed.
    """
    settings = recipe.train
    per_label = _per_class(settings) if recipe.task.exclusive else _per_finding(settings)
    middle = 1 / len(recipe.task.findings) if recipe.task.exclusive else 0.5

    def loss(outputs: Tensor, labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        known = ~torch.isnan(labels)
        if recipe.task.exclusive:
            known = known.all(1, keepdim=True).expand_as(labels)
        target = torch.where(known, labels, torch.zeros_like(labels))
        target = target * (1 - smoothing) + smoothing * middle
        losses = per_label(outputs.float(), target, class_weights)
        count = known[:, 0].sum() if recipe.task.exclusive else known.sum()
        return torch.where(known, losses, torch.zeros_like(losses)).sum(), count

    return loss


def _per_finding(settings: TrainSettings) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Sigmoid losses: each label for itself.

    With p the probability and t the label: -w1 t a log p - w0 (1 - t) b log(1 - q), where

    - binary cross-entropy: a = b = 1, q = p;
    - focal (Lin et al. 2017): a = (1 - p)^gamma, b = p^gamma, q = p;
    - asymmetric (Ridnik et al. 2021): a = (1 - p)^gamma_positive, b = q^gamma_negative, q = max(p - margin, 0).
    """

    def losses(outputs: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
        present, absent = -logsigmoid(outputs), -logsigmoid(-outputs)
        if settings.loss == "focal":
            present = present * torch.sigmoid(-outputs) ** settings.focal_gamma
            absent = absent * torch.sigmoid(outputs) ** settings.focal_gamma
        elif settings.loss == "asymmetric":
            shifted = (torch.sigmoid(outputs) - settings.negative_margin).clamp(min=1e-8)
            present = present * torch.sigmoid(-outputs) ** settings.gamma_positive
            absent = -torch.log1p(-shifted.clamp(max=1 - 1e-7)) * shifted**settings.gamma_negative
        return class_weights[:, 1] * target * present + class_weights[:, 0] * (1 - target) * absent

    return losses


def _per_class(settings: TrainSettings) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Softmax losses: -w t log p for each class, times (1 - p)^gamma for the focal loss."""

    def losses(outputs: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
        logarithms = log_softmax(outputs, 1)
        values = -class_weights[:, 1] * target * logarithms
        if settings.loss == "focal":
            values = values * (1 - logarithms.exp()) ** settings.focal_gamma
        return values

    return losses
