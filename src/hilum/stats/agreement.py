"""Two sets of labels, or the votes of several readers -> how far they agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import DataError, UsageError
from hilum.stats.inputs import columns


@dataclass(frozen=True)
class Agreement:
    """How far two sets of labels agree about one finding, over the images that both know.

    Attributes:
        finding: Its name.
        both: Images where both say present.
        first_only: Images where only the first says present.
        second_only: Images where only the second says present.
        neither: Images where both say absent.
        one_sided: Images that only one of them knows; they are not compared.
    """

    finding: str
    both: int
    first_only: int
    second_only: int
    neither: int
    one_sided: int

    @property
    def compared(self) -> int:
        """How many images both know."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def observed(self) -> float:
        """Share of the images on which they agree; NaN without images."""
        return _ratio(self.both + self.neither, self.compared)

    @property
    def kappa(self) -> float:
        """Cohen's kappa (Educational and Psychological Measurement 1960;20:37-46).

        NaN where chance alone would agree always: both call all images present, or all absent.
        """
        first, second = self.both + self.first_only, self.both + self.second_only
        total = self.compared
        chance = _ratio(first * second + (total - first) * (total - second), total * total)
        return _ratio(self.observed - chance, 1 - chance)

    @property
    def positive(self) -> float:
        """Positive agreement: 2 both / (all calls of present by either) (Cicchetti and Feinstein 1990).

        Kappa is low for rare findings however well both agree; this is not. NaN where nobody calls present.
        """
        return _ratio(2 * self.both, 2 * self.both + self.first_only + self.second_only)

    @property
    def negative(self) -> float:
        """Negative agreement: 2 neither / (all calls of absent by either); NaN where nobody calls absent."""
        return _ratio(2 * self.neither, 2 * self.neither + self.first_only + self.second_only)


def agreement(
    first: ArrayLike, second: ArrayLike, *, findings: Sequence[str] | None = None
) -> tuple[Agreement, ...]:
    """Compare two sets of labels of the same images, finding by finding.

    Args:
        first: (images, findings) or (images,): 1 present, 0 absent, NaN unknown.
        second: The same shape.
        findings: One name a column; None: "finding 1", "finding 2", ...

    Raises:
        UsageError: Shapes or lengths differ.
        DataError: A label is none of 0, 1 and NaN, or there is none.

    Example:
        >>> agreement([1, 1, 0, 0], [1, 0, 0, 0])[0].kappa
        0.5
    """
    one, other = columns(first, name="the first labels"), columns(second, name="the second labels")
    if one.shape != other.shape:
        raise UsageError(f"labels of {one.shape} and {other.shape}; give two of each image and finding")
    names = findings if findings is not None else [f"finding {i + 1}" for i in range(one.shape[1])]
    if len(names) != one.shape[1]:
        raise UsageError(f"{len(names)} finding names for {one.shape[1]} columns; name each once")
    for values in (one, other):
        if not (np.isnan(values) | (values == 0) | (values == 1)).all():
            raise DataError("labels hold other values than 0, 1 and NaN (unknown)")
    return tuple(
        Agreement(
            finding=name,
            both=int(((a == 1) & (b == 1)).sum()),
            first_only=int(((a == 1) & (b == 0)).sum()),
            second_only=int(((a == 0) & (b == 1)).sum()),
            neither=int(((a == 0) & (b == 0)).sum()),
            one_sided=int((np.isnan(a) != np.isnan(b)).sum()),
        )
        for name, a, b in zip(names, one.T, other.T, strict=True)
    )


def fleiss_kappa(votes: ArrayLike) -> float:
    """Agreement of several readers beyond chance (Fleiss, Psychological Bulletin 1971;76:378-382).

    Args:
        votes: (images, categories): how many readers chose each category; the same number of readers an image.

    Returns:
        At most 1; NaN where every reader always chose one category.

    Raises:
        UsageError: Not counts of (images, categories).
        DataError: Numbers of readers differ between images, or are below two.
    """
    counts = columns(votes, name="votes")
    readers = counts.sum(axis=1)
    if (counts < 0).any() or (counts != np.rint(counts)).any():
        raise UsageError("votes are not counts; give how many readers chose each category")
    if (readers != readers[0]).any() or readers[0] < 2:
        raise DataError(
            f"images have {readers.min():g} to {readers.max():g} readers; the same number, two at least, was expected"
        )
    n = readers[0]
    observed = float(((counts**2).sum(axis=1) - n).mean() / (n * (n - 1)))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return _ratio(observed - chance, 1 - chance)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan
