"""Images -> studies or patients: one label and one probability for each."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError, nearest
from hilum.stats.inputs import Floats, Integers, check, number_clusters

How = Literal["maximum", "mean"]


@dataclass(frozen=True)
class GroupPredictions:
    """One row a group.

    Attributes:
        name: For outputs, such as "patient (maximum)".
        labels: (groups, findings): 1 where an image shows the finding, 0 where every image is known not to,
            else NaN.
        probabilities: (groups, findings) in [0, 1].
        first_image: (groups,) row of each group's first image, to look up what its images share.
        sizes: (groups,) images.
    """

    name: str
    labels: Floats
    probabilities: Floats
    first_image: Integers
    sizes: Integers


def aggregate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    groups: ArrayLike,
    level: str,
    how: How = "maximum",
) -> GroupPredictions:
    """Join each group's images; groups come in the order of their first image.

    Args:
        labels: (images, findings) or (images,), 1 present, 0 absent, NaN unknown.
        probabilities: The same shape, in [0, 1].
        groups: (images,) the patient or study of each image.
        level: What a group is: "patient" or "study".
        how: "maximum": the most suspicious image speaks; "mean": all images do.

    Returns:
        The groups. Patients of studies are `patients[level.first_image]`.

    Raises:
        UsageError: Shapes differ or `how` is unknown.
        DataError: A value is no label or no probability.
    """
    if how not in get_args(How):
        raise UsageError(f"unknown aggregation {how!r}; known: {nearest(how, get_args(How))}")
    inputs = check(labels, probabilities)
    codes, count = number_clusters(groups, num_images=len(inputs.labels))
    first = np.full(count, len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(count)
    order = np.argsort(rank[codes], kind="stable")
    sizes = np.bincount(rank[codes], minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sorted_labels, sorted_probabilities = inputs.labels[order], inputs.probabilities[order]
    # maximum spreads NaN, fmax ignores it: an image that shows the finding outweighs unknown ones, no other
    # does.
    known = np.fmax.reduceat(sorted_labels, starts, axis=0)
    cautious = np.maximum.reduceat(sorted_labels, starts, axis=0)
    if how == "maximum":
        joined = np.maximum.reduceat(sorted_probabilities, starts, axis=0)
    else:
        joined = np.add.reduceat(sorted_probabilities, starts, axis=0) / sizes[:, None]
        # A mean of ones may round past 1.
        joined = np.clip(joined, 0, 1)
    return GroupPredictions(
        f"{level} ({how})", np.where(known == 1, 1.0, cautious), joined, np.sort(first), sizes
    )
