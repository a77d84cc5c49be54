"""Names of losses -> their formulas, in functions that every engine has; no framework here.

With p the probability, t the label from 0 to 1, and w0, w1 the class weights of absent and of present. Over findings
(sigmoid) a loss is w1 t a + w0 (1 - t) b, over classes that exclude each other (softmax) it is w1 t a.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Functions(Protocol):
    """An engine's functions of its tensors, element by element."""

    def exp(self, x: Any) -> Any:
        """Return e to the x."""
        ...

    def log1p(self, x: Any) -> Any:
        """Return the logarithm of 1 + x."""
        ...

    def sigmoid(self, x: Any) -> Any:
        """Return 1 / (1 + exp(-x))."""
        ...

    def log_sigmoid(self, x: Any) -> Any:
        """Return the logarithm of the sigmoid."""
        ...

    def log_softmax(self, x: Any) -> Any:
        """Return the logarithm of the softmax over the columns."""
        ...

    def at_least(self, x: Any, bound: float) -> Any:
        """Return the larger of x and a number."""
        ...

    def at_most(self, x: Any, bound: float) -> Any:
        """Return the smaller of x and a number."""
        ...


@dataclass(frozen=True)
class LossInputs:
    """What a formula is computed from.

    Attributes:
        logits: Float32 (batch, outputs).
        target: Labels from 0 to 1, (batch, outputs).
        weights: Class weights of absent and of present, (outputs, 2).
        settings: The recipe's section `train`.
    """

    logits: Any
    target: Any
    weights: Any
    settings: Any

    def weighted(self, present: Any, absent: Any) -> Any:
        """Weigh the losses of a finding that is present and of one that is absent by class and target."""
        return self.weights[:, 1] * self.target * present + self.weights[:, 0] * (1 - self.target) * absent


Formula = Callable[[Functions, LossInputs], Any]
"""An engine's functions, the inputs -> the loss of each label, (batch, outputs)."""


@dataclass(frozen=True)
class Loss:
    """A loss that a recipe can name.

    Attributes:
        findings: Its formula over findings, each for itself; None where it has none.
        classes: Its formula over classes that exclude each other; None where it has none.
    """

    findings: Formula | None = None
    classes: Formula | None = None


def binary_cross_entropy(functions: Functions, inputs: LossInputs) -> Any:
    """Compute a = -log p, b = -log(1 - p)."""
    return inputs.weighted(-functions.log_sigmoid(inputs.logits), -functions.log_sigmoid(-inputs.logits))


def cross_entropy(functions: Functions, inputs: LossInputs) -> Any:
    """Compute a = -log p."""
    return -inputs.weights[:, 1] * inputs.target * functions.log_softmax(inputs.logits)


def focal(functions: Functions, inputs: LossInputs) -> Any:
    """Compute a = -(1 - p)^gamma log p, b = -p^gamma log(1 - p) (Lin et al. 2017)."""
    # Gradients are summed in the order of these lines: another one gives other last bits.
    logits, gamma = inputs.logits, inputs.settings.focal_gamma
    present, absent = -functions.log_sigmoid(logits), -functions.log_sigmoid(-logits)
    present = present * functions.sigmoid(-logits) ** gamma
    absent = absent * functions.sigmoid(logits) ** gamma
    return inputs.weighted(present, absent)


def focal_of_classes(functions: Functions, inputs: LossInputs) -> Any:
    """Compute a = -(1 - p)^gamma log p."""
    logarithms = functions.log_softmax(inputs.logits)
    rest = 1 - functions.exp(logarithms)
    return -inputs.weights[:, 1] * inputs.target * logarithms * rest**inputs.settings.focal_gamma


def asymmetric(functions: Functions, inputs: LossInputs) -> Any:
    """Compute a = -(1 - p)^gamma_positive log p, b = -q^gamma_negative log(1 - q) (Ridnik et al. 2021).

    q is max(p - margin, 0), kept away from 0 and 1 by what keeps its gradient finite.
    """
    logits, settings = inputs.logits, inputs.settings
    present = -functions.log_sigmoid(logits)
    shifted = functions.at_least(functions.sigmoid(logits) - settings.negative_margin, 1e-8)
    present = present * functions.sigmoid(-logits) ** settings.gamma_positive
    absent = -functions.log1p(-functions.at_most(shifted, 1 - 1e-7)) * shifted**settings.gamma_negative
    return inputs.weighted(present, absent)


LOSSES: dict[str, Loss] = {
    "bce": Loss(findings=binary_cross_entropy),
    "softmax": Loss(classes=cross_entropy),
    "focal": Loss(findings=focal, classes=focal_of_classes),
    "asymmetric": Loss(findings=asymmetric),
}
"""Name -> loss; a recipe takes these names and `auto`."""


def find_formula(name: str, *, exclusive: bool) -> Formula:
    """Return the formula of a loss for findings, or for classes that exclude each other.

    Args:
        name: One of `LOSSES`, or `auto`: cross-entropy.
        exclusive: Whether the classes exclude each other.

    Raises:
        ValueError: The loss is not for such a task; the recipe refuses it before.
    """
    loss = LOSSES[("softmax" if exclusive else "bce") if name == "auto" else name]
    formula = loss.classes if exclusive else loss.findings
    if formula is None:
        raise ValueError(f"the loss {name!r} has no formula for {'classes' if exclusive else 'findings'}")
    return formula
