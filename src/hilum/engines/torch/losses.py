"""A recipe's loss: logits and labels -> the sum over what is known, and how much that is."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from hilum.recipe import Recipe
from hilum.recipe.losses import LossInputs, find_formula

TensorLoss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class TorchFunctions:
    """See `hilum.recipe.losses.Functions`."""

    exp = staticmethod(torch.exp)
    log1p = staticmethod(torch.log1p)
    sigmoid = staticmethod(torch.sigmoid)
    log_sigmoid = staticmethod(logsigmoid)

    def log_softmax(self, x: Tensor) -> Tensor:
        """Return the logarithm of the softmax over the columns."""
        return log_softmax(x, 1)

    def at_least(self, x: Tensor, bound: float) -> Tensor:
        """Return the larger of x and a number."""
        return x.clamp(min=bound)

    def at_most(self, x: Tensor, bound: float) -> Tensor:
        """Return the smaller of x and a number."""
        return x.clamp(max=bound)


def make_loss(recipe: Recipe, *, smoothing: float = 0.0) -> TensorLoss:
    """Make the loss of a recipe.

    Args:
        recipe: Its task and its train section are read.
        smoothing: How far labels move toward the middle.

    Returns:
        A function of logits (batch, outputs), labels (batch, outputs) from 0 to 1 with NaN for unknown, and class
        weights (outputs, 2) of absent and of present. It gives the sum of the losses of what is known, and the number
        of known labels (of rows for `multiclass`): the mean loss is their ratio, over whatever they are summed.
    """
    exclusive, functions = recipe.task.exclusive, TorchFunctions()
    formula = find_formula(recipe.train.loss, exclusive=exclusive)
    middle = 1 / len(recipe.task.findings) if exclusive else 0.5

    def loss(outputs: Tensor, labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        known = ~torch.isnan(labels)
        if exclusive:
            known = known.all(1, keepdim=True).expand_as(labels)
        target = torch.where(known, labels, torch.zeros_like(labels))
        target = target * (1 - smoothing) + smoothing * middle
        losses = formula(functions, LossInputs(outputs.float(), target, class_weights, recipe.train))
        count = known[:, 0].sum() if exclusive else known.sum()
        return torch.where(known, losses, torch.zeros_like(losses)).sum(), count

    return loss
