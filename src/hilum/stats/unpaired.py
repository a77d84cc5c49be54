"""Estimates of two samples without a common patient -> their difference with its interval."""

from math import sqrt

from hilum.notices import notice
from hilum.stats.intervals import Estimate

METHOD = "MOVER from the two intervals"


def unpaired_difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, each with an interval of the same confidence, of samples that share no patient.

    The method of variance estimates recovery: the distance from each estimate to the end of its own interval stands
    for its spread on that side, so that the difference inherits what the intervals know of patients, of skew and of
    the ends of the scale (Zou & Donner 2008, Statistics in Medicine 27:1693-1702). Of two proportions with Wilson's
    intervals it is Newcombe's method 10 (1998, Statistics in Medicine 17:873-890).

    Returns:
        The difference; without an interval, and with the reason, where either has none.

    Example:
        >>> found = unpaired_difference(Estimate(0.8, 0.6918, 0.8770), Estimate(0.6, 0.4905, 0.7004))
        >>> round(found.value, 4), round(found.low, 3), round(found.high, 3)
        (0.2, 0.052, 0.334)
    """
    if first.value is None or second.value is None:
        missing = first.notice if first.value is None else second.notice
        return Estimate(None, notice=missing or notice("one-sample-without-value"))
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        missing = first.notice if first.low is None else second.notice
        return Estimate(value, notice=missing or notice("one-sample-without-interval"))
    below = sqrt((first.value - first.low) ** 2 + (second.high - second.value) ** 2)
    above = sqrt((first.high - first.value) ** 2 + (second.value - second.low) ** 2)
    return Estimate(value, value - below, value + above, METHOD)
