"""Subgroups -> the sentences of where it fails: levels that differ, and metadata that tell as much as the model."""

from collections.abc import Sequence

from hilum.evaluation.scoring import worse_than_chance
from hilum.evaluation.subgroups import UNKNOWN, Baseline, Factor, Level, Subgroups
from hilum.progress import count
from hilum.report import formatting

SURE = 0.05
"""A difference is named as such where its p value after Holm's correction is below."""
APART = 0.02
"""The AUROC of all images is told of where it lies so far outside of those of the levels."""
NAMED = 6
"""So many levels are named in sentences."""


def disparity_sentences(found: Subgroups) -> tuple[str, ...]:
    """What a reader must know: levels that differ, figures that mix levels, and metadata that tell as much."""
    what = "Mean AUROC" if len(found.baseline) > 1 else "AUROC"
    lines = []
    known = [(factor, level) for factor in found.factors for level in _differing(factor)]
    known.sort(key=lambda one: one[1].difference.value or 0)
    # Of levels that divide the images alike the lowest is named, and of equal ones the first.
    once: dict[int, tuple[Factor, Level]] = {}
    for factor, level in known:
        once.setdefault(level.division, (factor, level))
    differing = [*once.values()]
    looked = (
        f"of {count(found.comparisons, 'comparison')}; each interval is of that level alone, p after Holm's "
        "correction for all"
    )
    for sure, verb in (
        (True, "differs from the rest"),
        (False, "may differ from the rest, or by chance alone,"),
    ):
        some = [one for one in differing if (one[1].holm_p is not None and one[1].holm_p < SURE) == sure]
        if some:
            told = "; ".join(_told(factor, level) for factor, level in some[:NAMED])
            more = f"; and {len(some) - NAMED} more" if len(some) > NAMED else ""
            lines.append(f"{what} {verb} in {told}{more} ({looked}).")
    lines += [f"{what} {line}" for line in _outsides(found.factors)]
    if len(found.baseline) == 1 and (apart := _decisions(found.factors)):
        lines.append(
            f"At the threshold levels lie apart, by intervals that do not overlap: {'; '.join(apart)}."
        )
    # What is worse than chance is told before all else, and more than this.
    unsure = [
        name
        for name, one in found.baseline.items()
        if not _surely_above(one) and not worse_than_chance(one.model.high)
    ]
    if unsure:
        lines.append(_matched(found, unsure))
    return tuple(lines)


def named(factor: Factor, level: Level) -> str:
    """Name a level in a sentence: `source nih`, `AP view`, `female patients`, `age 40–59`, `unknown sex`."""
    if level.name == UNKNOWN:
        return f"{level.name} {factor.name}"
    return {"view": "{} view", "sex": "{} patients"}.get(factor.name, f"{factor.name} {{}}").format(
        level.name
    )


def _outsides(factors: Sequence[Factor]) -> list[str]:
    """What `_outside` says of each factor, of those with the same levels that can be scored the first."""
    told: dict[frozenset[tuple[str, str]], str] = {}
    for factor in factors:
        scored = [level for level in factor.levels if level.auroc.value is not None]
        if line := _outside(factor):
            told.setdefault(frozenset(level.same_as or (factor.name, level.name) for level in scored), line)
    return list(told.values())


def _outside(factor: Factor) -> str:
    """Say so where all images together are ranked better, or worse, than those of every level that can be scored."""
    scored = {level.auroc.value: level for level in factor.levels if level.auroc.value is not None}
    if factor.whole is None or not scored:
        return ""
    low, high = min(scored), max(scored)
    if low - APART <= factor.whole <= high + APART:
        return ""
    side = "below" if factor.whole < low else "above"
    if len(scored) == 1:
        (only,) = scored.values()
        if only.same_as:  # told, or refuted, at the other factor
            return ""
        return (
            f"{factor.whole:.3f} of all images together lies {side} that of {named(factor, only)} ({low:.3f}), the "
            f"only level of {factor.name} that can be scored: the others differ in labels or probabilities, and the "
            "figure of all mixes that in."
        )
    return (
        f"{factor.whole:.3f} of all images together lies {side} that of every {factor.name} ({low:.3f} to {high:.3f}): "
        "whole levels differ in labels or probabilities, and the figure of all mixes that in."
    )


def _decisions(factors: Sequence[Factor]) -> list[str]:
    """Of one finding the lowest and highest sensitivity and specificity of a factor, where their intervals are apart.

    Levels that are the very same images as those of an earlier factor are set against others there.
    """
    told = []
    for factor in factors:
        for metric in ("sensitivity", "specificity"):
            known = [
                (one, level)
                for level in factor.levels
                if level.same_as is None
                for one in (next(iter(level.findings.values())).metrics[metric],)
                if one.value is not None
            ]
            known.sort(key=lambda pair: pair[0].value or 0)
            if not known:
                continue
            (low, first), (high, last) = known[0], known[-1]
            if low.high is not None and high.low is not None and low.high < high.low:
                sides = " against ".join(
                    f"{formatting.estimate(one.to_dict())} in {named(factor, level)}"
                    for one, level in ((low, first), (high, last))
                )
                told.append(f"{metric} {sides}")
    return told


def _differing(factor: Factor) -> list[Level]:
    """The levels that are lower than the rest beyond their intervals; those that are higher where none is lower."""
    known = [level for level in factor.levels if level.difference.low is not None]
    lower = [level for level in known if (level.difference.high or 0) < 0]
    return lower or [level for level in known if (level.difference.low or 0) > 0]


def _surely_above(one: Baseline) -> bool:
    """Whether the model is surely above metadata and chance; where a figure is missing nothing is said against it."""
    return one.difference.low is None or one.difference.low > 0


def _matched(found: Subgroups, unsure: Sequence[str]) -> str:
    if len(found.baseline) == 1:
        one = found.baseline[unsure[0]]
        known = ", ".join(name for name, alone in one.alone.items() if alone.value is not None)
        model, metadata = (formatting.value(estimate.to_dict()) for estimate in (one.model, one.metadata))
        if (one.metadata.value or 0) < 0.5:
            return (
                f"The model's AUROC ({model}) is not surely above chance, 0.5; metadata tell nothing without a look at "
                f"the image ({known}: {metadata})."
            )
        return (
            f"The model's AUROC ({model}) is not surely above what metadata tell without a look at the image "
            f"({known}: {metadata})."
        )
    return (
        f"For {len(unsure)} of {len(found.baseline)} the model's AUROC is not surely above what metadata (view, age, "
        f"sex, size) tell without a look at the image, or not above chance: {', '.join(unsure)}."
    )


def _told(factor: Factor, level: Level) -> str:
    one = level.difference
    assert one.value is not None
    assert one.low is not None
    assert one.high is not None
    ends = sorted((abs(one.low), abs(one.high)))
    how_sure = "" if level.holm_p is None else f", p {formatting.p_text(level.holm_p)}"
    return (
        f"{named(factor, level)}: {formatting.value(level.auroc.to_dict())}, "
        f"{'lower' if one.value < 0 else 'higher'} by {abs(one.value):.3f} ({ends[0]:.3f}–{ends[1]:.3f}{how_sure})"
    )
