"""What the training loops of all engines share: where they stand in an epoch, how often they save, and their words."""

from collections.abc import Sequence
from dataclasses import dataclass

from hilum.engines.policy import Policy
from hilum.errors import NotANumberError, StoppedError, TrainingError
from hilum.recipe import Recipe

NUM_IMAGES_TO_UNFOLD = 512
SAVE_SECONDS = 600.0  # the most that is lost of a long epoch


@dataclass
class Position:
    """Where in an epoch training stands.

    Attributes:
        batches: Done, of the epoch under way.
        loss: Sum of the steps' mean losses, each times its images.
        images: Seen in the epoch.
        seconds: Spent on it.
    """

    batches: int = 0
    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0


def no_number(loss: float, policy: Policy, *, step: int, rows: Sequence[int]) -> NotANumberError:
    """What is told of a loss that is not a number.

    Args:
        loss: What it is.
        policy: In the epoch under way.
        step: In that epoch, from 1.
        rows: Of the batch.
    """
    return NotANumberError(
        f"the loss became {loss} in epoch {policy.epoch + 1}, step {step}; lower train.learning_rate "
        f"(now {policy.learning_rate:g}), set train.clip_norm=1, or train.precision=fp32",
        rows,
    )


def stop_asked(policy: Policy, *, step: int, steps: int) -> StoppedError:
    """What is told where somebody asked to stop after a step, from 1, of an epoch of so many."""
    return StoppedError(
        f"stopped from outside in epoch {policy.epoch + 1} after step {step} of {steps}; "
        "the state is saved, go on with --resume"
    )


def no_memory(recipe: Recipe) -> TrainingError:
    """What is told where memory was not enough."""
    size, half = recipe.train.batch_size, max(recipe.train.batch_size // 2, 2)
    return TrainingError(
        f"out of memory with batches of {size} images of {recipe.data.size} pixels; "
        f"set train.batch_size={half} and train.accumulate={recipe.train.accumulate * 2} "
        "(the same effective batch), or a smaller data.size"
    )


def no_best(policy: Policy) -> TrainingError:
    """What is told where no epoch was better than none."""
    return TrainingError(
        f"no epoch had a usable {policy.monitor} on validation; "
        "set train.monitor=val_loss, or give validation images of both kinds"
    )
