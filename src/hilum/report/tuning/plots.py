"""A Study -> Figures: the search, each key against the figure, all keys together, what matters, and the curves."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hilum.progress import count
from hilum.report import formatting
from hilum.report.drawing import bars, style
from hilum.report.section import Plot
from hilum.tuning.study import Dimension, Study, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP, HEIGHT = 0.62, 2.1
"""Inches above the frame, and its height."""
BEST_SHARE = 0.25
"""Of the complete trials that are drawn as the best ones."""
MOST_CURVES = 60


def plots(study: Study) -> Iterator[Plot]:
    """Yield what there is to draw of a study with at least one complete trial."""
    best = study.ranked.iloc[0]
    figure, number = study.figure, len(study.trials)
    said = f"Best {figure} {formatting.number(best['value'])}, trial {best['trial']} of {number}"
    yield Plot(
        "history",
        history(study, title=said),
        said,
        f"Each trial's {figure} at its best epoch{_of_several(study)}. {_less(study)}",
    )
    varied = [each for each in study.dimensions if len(set(map(str, study.ranked[each.key]))) > 1]
    for place, first in enumerate(range(0, len(varied), 3), start=1):
        some = varied[first : first + 3]
        yield Plot(
            "slices" if place == 1 else f"slices_{place}",
            slices(study, some),
            ". ".join(_effect(study, each) for each in some),
            _slices_caption(study, some, alone=len(varied) == 1),
        )
    if len(varied) > 1 and len(study.ranked) > 3:
        share = max(1, round(BEST_SHARE * len(study.ranked)))
        which = f"best {share}" if share > 1 else "best"
        said = f"Where the {which} of {len(study.ranked)} complete trials {'lie' if share > 1 else 'lies'}"
        yield Plot(
            "parallel",
            parallel(study, varied, best=share, title=said),
            said,
            "A line is a trial, through the value of each key to its figure. Black: the best"
            + (f"; blue: the next {share - 1} of the best quarter." if share > 1 else "."),
        )
    if study.importances:
        key, largest = max(study.importances.items(), key=lambda pair: pair[1])
        share_words = f"explains {100 * largest:.0f}\N{NO-BREAK SPACE}% of the variance"
        said = f"{_dimension(study, key).name.capitalize()} alone {share_words}"
        yield Plot(
            "importances",
            importances(study, title=said),
            said,
            f"Share of the variance of {figure} over the search space that each key explains alone, by a random "
            f"forest of {count(len(study.ranked), 'complete trial')} (fANOVA, Hutter et al. 2014); of few "
            "trials a hint.",
        )
    if any(len(curve) > 1 for curve in study.curves.values()):
        said = f"The best trial was best in epoch {best['best_epoch']} of {best['epochs']}"
        yield Plot(
            "curves",
            curves(study, title=said),
            said,
            f"{_curves_caption(study)} A curve that still improves at its end asks for more epochs.",
        )


def _of_several(study: Study) -> str:
    """What else is drawn where there are several trials."""
    if len(study.trials) < 2:
        return ""
    return "; line: the best so far; ring: the best"


def _slices_caption(study: Study, some: Sequence[Dimension], *, alone: bool) -> str:
    """Say what the panels show, and of the marks those that are drawn."""
    others = "" if alone else " by one key at a time, the others varying too"
    repeated = any(each.choices and study.ranked[each.key].astype(str).duplicated().any() for each in some)
    dash = " Dash: the median of a choice's trials." if repeated else ""
    return f"Each complete trial{others}. Ring: the best.{dash}"


def _curves_caption(study: Study) -> str:
    """Say what the lines are, of those that are drawn."""
    early = [number for number in _shown(study) if number in _early(study)]
    marks = (
        ["Ring: its best epoch."]
        if len(study.ranked) < 2
        else ["Bold: the best, with a ring at its best epoch."]
    )
    marks += ["Orange: ended early."] if any(study.curves[number] for number in early) else []
    return " ".join(["A line is a trial." if len(_shown(study)) > 1 else "The one trial.", *marks])


def _early(study: Study) -> set[int]:
    return set(study.trials.loc[study.trials["state"] == "pruned", "trial"])


def _shown(study: Study) -> list[int]:
    """Trials whose curves are drawn: the best, then those that ended early."""
    return [*study.ranked["trial"], *sorted(_early(study))][:MOST_CURVES]


@style.styled
def history(study: Study, *, title: str) -> "Figure":
    """Draw the figure by trial, with the best so far."""
    drawing, frame = _frame(title, _trained_on(study), width=style.FULL - 0.72 - 0.15, left=0.72)
    trials = study.trials
    complete = trials[trials["state"] == "complete"]
    pruned = trials[(trials["state"] == "pruned") & trials["value"].notna()]
    failed = trials[trials["state"] == "failed"]
    running = complete["value"].cummin() if study.minimised else complete["value"].cummax()
    frame.step(
        [*complete["trial"], len(trials)],
        [*running, running.iloc[-1]],
        where="post",
        color=style.BLUE,
        linewidth=1,
        alpha=0.6,
    )
    frame.plot(complete["trial"], complete["value"], "o", color=style.BLUE, markersize=5, markeredgewidth=0)
    frame.plot(pruned["trial"], pruned["value"], "o", color=style.ORANGE, markersize=4, fillstyle="none")
    if len(trials) > 1:
        best = study.ranked.iloc[0]
        frame.plot([best["trial"]], [best["value"]], "o", color=style.INK, markersize=8, fillstyle="none")
    low, high = _limits([*complete["value"], *pruned["value"]])
    frame.set_ylim(low, high)
    frame.plot(
        failed["trial"], np.full(len(failed), low), "x", color=style.ORANGE, clip_on=False, markersize=6
    )
    frame.set_xlim(0.5, max(len(trials), 2) + 0.5)
    frame.locator_params(axis="x", integer=True, nbins=12)
    frame.set_xlabel("Trial", labelpad=2)
    frame.set_ylabel(study.figure)
    legend, marks = {"complete": style.BLUE}, "●"
    if len(pruned):
        legend["ended early"] = style.ORANGE
        marks += "○"
    if len(failed):
        legend[f"{len(failed)} failed"] = style.ORANGE
        marks += "✕"
    if len(legend) > 1:
        bars.legend(drawing, legend, left=0.72, top=TOP - 0.08, marks=marks)
    return drawing


@style.styled
def slices(study: Study, some: Sequence[Dimension]) -> "Figure":
    """Draw the figure by each of up to three keys, a panel each."""
    left, gap = 0.72, 0.36
    width = (style.FULL - left - 0.1 - 2 * gap) / 3
    top = 0.36
    drawing = style.figure(left + 0.1 + len(some) * (width + gap), top + HEIGHT + 0.52)
    ranked = study.ranked
    for number, dimension in enumerate(some):
        across = left + number * (width + gap)
        frame = style.axes(drawing, left=across, top=top, width=width, height=HEIGHT)
        places = _places(dimension, ranked[dimension.key])
        best = formatting.cut(f"Best at {show(ranked.iloc[0][dimension.key])}", 20)
        style.write(drawing, best, left=across, top=0.17, bold=True)
        values = ranked["value"].to_numpy()
        for place in sorted(set(places)) if dimension.choices else ():
            of_choice = values[places == place]
            if len(of_choice) > 1:  # the median of one is its dot
                middle = float(np.median(of_choice))
                frame.plot([place], [middle], "_", color=style.SLATE, markersize=18, markeredgewidth=1.6)
        frame.plot(places, values, "o", color=style.BLUE, markersize=5, markeredgewidth=0, alpha=0.75)
        frame.plot(places[:1], values[:1], "o", color=style.INK, markersize=8, fillstyle="none")
        frame.set_ylim(*_limits(values))
        _scale(frame, dimension)
        frame.set_xlabel(dimension.name, labelpad=2)
        if number:
            frame.set_yticklabels([])
        else:
            frame.set_ylabel(study.figure)
    return drawing


@style.styled
def parallel(study: Study, axes: Sequence[Dimension], *, best: int, title: str) -> "Figure":
    """Draw each complete trial as a line through its values to its figure; the best ones stand out."""
    ranked, left, right = study.ranked, 0.75, 0.75
    width = style.FULL - left - right
    drawing = style.figure(style.FULL, TOP + 0.25 + HEIGHT + 0.12)
    style.heading(drawing, title, _trained_on(study))
    frame = style.axes(drawing, left=left, top=TOP + 0.25, width=width, height=HEIGHT)
    heights = [_heights(each, ranked[each.key]) for each in axes]
    values = ranked["value"].to_numpy(float)
    low, high = _limits(values)
    heights.append((values - low) / (high - low))
    lines = np.stack(heights, axis=1)
    for place in reversed(range(len(lines))):
        good = place < best
        colour = style.INK if place == 0 else style.BLUE if good else style.SLATE
        frame.plot(
            range(lines.shape[1]),
            lines[place],
            color=colour,
            linewidth=2 if place == 0 else 1.2 if good else 0.7,
            alpha=1 if place == 0 else 0.8 if good else 0.4,
            solid_joinstyle="round",
        )
    frame.set_xlim(0, len(axes))
    frame.set_ylim(-0.04, 1.04)
    frame.set_xticks([])
    frame.set_yticks([])
    frame.spines[:].set_visible(False)
    step = width / len(axes)
    for place, each in enumerate(axes):
        frame.axvline(place, color=style.FAINT, linewidth=0.7, clip_on=False)
        align = "left" if place == 0 else "center"
        room = step + (0.6 * left if place == 0 else 0)
        name = formatting.cut(each.name, max(8, int(room / 0.09)))
        across = style.MARGIN if place == 0 else left + place * step
        style.write(drawing, name, left=across, top=TOP + 0.12, align=align, bold=True)
        for height, text in _marks(each):
            _mark(frame, place, height, text, outside=place == 0)
    frame.axvline(len(axes), color=style.FAINT, linewidth=0.7, clip_on=False)
    style.write(
        drawing, study.figure, left=style.FULL - style.MARGIN, top=TOP + 0.12, align="right", bold=True
    )
    for value in dict.fromkeys((float(values[0]), float(values[-1]))):
        frame.annotate(
            formatting.number(value),
            (len(axes), (value - low) / (high - low)),
            (5, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    return drawing


@style.styled
def importances(study: Study, *, title: str) -> "Figure":
    """Draw the share of variance that each key explains."""
    shares = dict(sorted(study.importances.items(), key=lambda pair: -pair[1]))
    rest = 1 - sum(shares.values())
    shares = {_dimension(study, key).name: share for key, share in shares.items()}
    shares |= {"keys together": rest} if rest > 0.005 else {}
    top, left = 0.58, 1.62
    drawing = style.figure(style.FULL, top + bars.PITCH * len(shares) + 0.1)
    style.heading(drawing, title, f"Share of the variance of {study.figure} over the search space")
    frame = bars.bare(
        drawing,
        left=left,
        top=top,
        width=style.FULL - left - 0.7,
        height=bars.PITCH * len(shares),
        rows=len(shares),
    )
    for place, (name, share) in enumerate(shares.items()):
        bars.name(drawing, name, place, left=style.MARGIN, top=top)
        colour = style.BLUE if place < len(study.importances) else style.SLATE
        frame.barh(place, share, height=0.66, color=colour, linewidth=0)
        bars.beside(frame, f"{100 * share:.0f}\N{NO-BREAK SPACE}%", share, place)
    frame.set_xlim(0, max(shares.values()))
    return drawing


@style.styled
def curves(study: Study, *, title: str) -> "Figure":
    """Draw the figure of each trial epoch by epoch; of many trials the best and those ended early."""
    best = int(study.ranked.iloc[0]["trial"])
    shown = _shown(study)
    subtitle = f"{len(shown)} of {len(study.trials)} trials" if len(shown) < len(study.trials) else ""
    drawing, frame = _frame(title, subtitle or _trained_on(study), left=0.72, width=style.FULL - 0.72 - 0.15)
    early = _early(study)
    for number in reversed(shown):
        curve = study.curves[number]
        colour = style.BLUE if number == best else style.ORANGE if number in early else style.SLATE
        frame.plot(
            range(1, len(curve) + 1),
            curve,
            color=colour,
            linewidth=2 if number == best else 0.8,
            alpha=1 if number == best or number in early else 0.7,
            zorder=2.2 if number == best or number in early else 2,
            marker="o" if len(curve) < 12 else "",
            markersize=4 if number == best else 2.5,
            markeredgewidth=0,
        )
    row = study.ranked.iloc[0]
    frame.plot([row["best_epoch"]], [row["value"]], "o", color=style.INK, markersize=8, fillstyle="none")
    length = max(len(study.curves[number]) for number in shown)
    frame.set_ylim(*_limits([value for number in shown for value in study.curves[number]]))
    frame.set_xlim(1 - 0.02 * length, length + 0.02 * length)
    frame.locator_params(axis="x", integer=True, nbins=12)
    frame.set_xlabel("Epoch", labelpad=2)
    frame.set_ylabel(study.figure)
    return drawing


def _frame(title: str, subtitle: str, *, left: float, width: float) -> tuple["Figure", "Axes"]:
    drawing = style.figure(style.FULL, TOP + HEIGHT + 0.52)
    style.heading(drawing, title, subtitle)
    frame = style.axes(drawing, left=left, top=TOP, width=width, height=HEIGHT)
    frame.grid(axis="y", color=style.HAIR, linewidth=0.6)
    frame.set_axisbelow(True)
    return drawing, frame


def _trained_on(study: Study) -> str:
    (images, patients), (val_images, val_patients) = study.images["train"], study.images["val"]
    return (
        f"validation: {count(val_images, 'image')} of {count(val_patients, 'patient')}; "
        f"training: {images:,} of {patients:,}"
    )


def _less(study: Study) -> str:
    return "Less is better." if study.minimised else "More is better."


def _dimension(study: Study, key: str) -> Dimension:
    return next(each for each in study.dimensions if each.key == key)


def _effect(study: Study, dimension: Dimension) -> str:
    """What is best of a key, in a few words."""
    best = study.ranked.iloc[0][dimension.key]
    return f"{dimension.name.capitalize()}: best at {show(best)}"


def _places(dimension: Dimension, values: "pd.Series[Any]") -> np.ndarray:
    """Where values stand on their axis: choices side by side in their order, numbers of a range where they are."""
    if dimension.choices:
        known = _in_order(dimension)
        return np.array([known.index(value) for value in values], float)
    return np.asarray(values, float)


def _in_order(dimension: Dimension) -> list[Any]:
    """Choices from small to large where they are numbers, else as they were given."""
    numbers = all(isinstance(choice, int | float) for choice in dimension.choices)
    return sorted(dimension.choices) if numbers else list(dimension.choices)


def _scale(frame: "Axes", dimension: Dimension) -> None:
    """Set limits and ticks of the x axis."""
    if dimension.choices:
        known = _in_order(dimension)
        frame.set_xlim(-0.5, len(known) - 0.5)
        frame.set_xticks(range(len(known)), [formatting.cut(show(choice), 10) for choice in known])
        if sum(len(show(choice)) + 2 for choice in known) > 26:
            frame.tick_params(axis="x", rotation=30)
        return
    if dimension.log:
        frame.set_xscale("log")
        frame.set_xlim(dimension.low / 1.15, dimension.high * 1.15)
        ends = np.log10([dimension.low, dimension.high])
        ticks = 10.0 ** np.arange(np.ceil(ends[0] - 1e-9), np.floor(ends[1] + 1e-9) + 1)
        ticks = ticks if len(ticks) > 1 else np.array([dimension.low, dimension.high])
        ticks = ticks[:: -(-len(ticks) // 4)]
        frame.set_xticks(ticks, [show(float(tick)) for tick in ticks])
        frame.minorticks_off()
        return
    room = 0.04 * (dimension.high - dimension.low)
    frame.set_xlim(dimension.low - room, dimension.high + room)
    frame.locator_params(axis="x", nbins=4, integer=dimension.whole)


def _heights(dimension: Dimension, values: "pd.Series[Any]") -> np.ndarray:
    """Values as heights from 0 to 1."""
    places = _places(dimension, values)
    if dimension.choices:
        return places / max(1, len(dimension.choices) - 1)
    low, high = dimension.low, dimension.high
    if dimension.log:
        places, low, high = np.log(places), float(np.log(low)), float(np.log(high))
    return np.asarray((places - low) / (high - low), float)


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    """Heights and words beside an axis."""
    if dimension.choices:
        known = _in_order(dimension)
        return [(place / max(1, len(known) - 1), show(choice)) for place, choice in enumerate(known)]
    return [(0.0, show(dimension.low)), (1.0, show(dimension.high))]


def _mark(frame: "Axes", place: int, height: float, text: str, *, outside: bool) -> None:
    """Write a value beside an axis, on paper so that lines do not cross it."""
    frame.annotate(
        formatting.cut(text, 10),
        (place, height),
        (-5 if outside else 5, 0),
        textcoords="offset points",
        ha="right" if outside else "left",
        va="center",
        annotation_clip=False,
        bbox=None if outside else {"facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _limits(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """End of an axis with some room."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room
