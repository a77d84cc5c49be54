"""Figures show the arrays they are given, under a title that says the finding."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from hilum.report import figures, style

NOTHING = np.zeros(0)


def words_of(drawing: Figure) -> list[str]:
    return [text.get_text() for text in drawing.findobj(Text) if isinstance(text, Text) and text.get_text()]


def curve(name: str = "Pneumonia") -> figures.Curve:
    x, y = np.array([0, 0.1, 0.4, 1]), np.array([0, 0.7, 0.9, 1])
    band = (np.linspace(0, 1, 5), np.full(5, 0.2), np.full(5, 0.9))
    return figures.Curve(
        name, "0.9 (0.8–0.95)", x, y, band=band, point=(0.1, 0.7), point_label=("threshold 0.42",)
    )


def test_roc_curve_runs_through_the_points_given() -> None:
    drawing = figures.roc([curve()], title="AUROC 0.900", subtitle="624 images")

    lines = [line.get_xydata() for line in drawing.axes[0].get_lines()]
    assert any(np.array_equal(line, np.column_stack([curve().x, curve().y])) for line in lines)
    assert any(np.array_equal(line, [[0.1, 0.7]]) for line in lines), "the operating point"
    assert {"AUROC 0.900", "624 images", "threshold 0.42"} <= set(words_of(drawing))


def test_precision_recall_draws_steps_and_the_prevalence() -> None:
    shown = figures.Curve("a", "", np.array([0, 0.5, 1]), np.array([1, 0.8, 0.3]), reference=0.3)

    frame = figures.precision_recall([shown], title="t").axes[0]

    levels = [line.get_ydata() for line in frame.get_lines()]
    assert any(np.array_equal(level, [0.3, 0.3]) for level in levels)
    assert any(line.get_drawstyle() == "steps-pre" for line in frame.get_lines())


def test_reliability_shows_bins_and_their_intervals() -> None:
    panel = figures.Reliability(
        "a",
        "",
        np.array([0.1, 0.8]),
        np.array([0.2, 0.7]),
        np.array([0.1, 0.6]),
        np.array([0.3, 0.8]),
        np.array([0.1, 0.1, 0.8]),
    )

    frame = figures.reliability([panel], title="t").axes[0]

    points = [line.get_xydata() for line in frame.get_lines() if line.get_marker() == "o"]
    assert np.array_equal(points[0], [[0.1, 0.2], [0.8, 0.7]])
    intervals = [segment for group in frame.collections for segment in group.get_segments()]  # type: ignore[attr-defined]
    assert np.allclose(intervals, [[[0.1, 0.1], [0.1, 0.3]], [[0.8, 0.6], [0.8, 0.8]]])
    bars = [patch for patch in frame.patches if isinstance(patch, Rectangle) and patch.get_height() > 0]
    assert len(bars) == 2


def test_confusion_matrix_shows_counts_and_per_cent_of_the_row() -> None:
    counts = np.array([[90, 10], [5, 45]])

    drawing = figures.confusion([figures.Confusion("a", "", ("absent", "present"), counts)], title="t")

    assert {"90", "10", "5", "45", "90.0 %", "10.0 %"} <= set(words_of(drawing))


def test_distribution_is_in_per_cent_of_its_class_and_marks_the_threshold() -> None:
    panel = figures.Distribution("a", "", np.array([0.9, 0.95, 0.9]), np.array([0.1]), 0.42)

    frame = figures.distributions([panel], title="t").axes[0]

    heights = [patch.get_height() for patch in frame.patches if isinstance(patch, Rectangle)]
    assert sum(height for height in heights if height > 0) == pytest.approx(100)
    assert sum(height for height in heights if height < 0) == pytest.approx(-100)
    assert any(np.array_equal(line.get_xdata(), [0.42, 0.42]) for line in frame.get_lines())


def test_learning_curves_mark_the_epoch_that_was_kept() -> None:
    epochs = np.arange(1, 6)
    losses = {"training": 1 / epochs, "validation": np.array([1, np.nan, 0.6, 0.7, 0.8])}

    drawing = figures.learning_curves(epochs, losses=losses, auroc=None, best_epoch=3, title="t")

    frame = drawing.axes[0]
    assert len(drawing.axes) == 1
    assert any(np.array_equal(line.get_xdata(), [3, 3]) for line in frame.get_lines())
    assert any(np.array_equal(line.get_xdata(), [1, 3, 4, 5]) for line in frame.get_lines()), (
        "NaN is left out"
    )


def test_forest_is_sorted_and_the_unknown_come_last() -> None:
    rows = [
        figures.Interval("low", 5, 0.6, 0.5, 0.7, "0.6"),
        figures.Interval("none", 0, None, None, None, "not estimable"),
        figures.Interval("high", 5, 0.9, None, None, "0.9"),
    ]

    drawing = figures.forest(rows, title="t", summary=figures.Interval("Mean", 0, 0.75, 0.7, 0.8, "0.75"))

    height = {text.get_text(): text.get_position()[1] for text in drawing.texts}
    assert height["high"] > height["low"] > height["none"] > height["Mean"]


@pytest.mark.parametrize("number", [2, 3, 5, 14])
def test_small_multiples_do_not_touch_each_other(number: int) -> None:
    drawing = figures.roc([curve("Pleural Thickening") for _ in range(number)], title="t", subtitle="s")
    style.png(drawing, dpi=50)
    renderer = drawing.canvas.get_renderer()  # type: ignore[attr-defined]

    boxes = [text.get_window_extent(renderer) for text in drawing.texts]
    assert len(drawing.axes) == number
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :]), (
        "headings overlap"
    )
    assert all(box.x0 >= 0 and box.x1 <= drawing.bbox.width for box in boxes)


def test_what_cannot_be_drawn_says_so() -> None:
    empty = figures.Curve("Hernia", "0 positives", NOTHING, NOTHING)

    words = words_of(figures.roc([curve(), empty], title="t"))

    assert "not estimable" in words
    assert "0 positives" in words


def test_no_text_is_smaller_than_nine_points() -> None:
    drawing = figures.roc([curve() for _ in range(14)], title="t", subtitle="s")

    sizes = [
        text.get_fontsize() for text in drawing.findobj(Text) if isinstance(text, Text) and text.get_text()
    ]
    assert min(sizes) >= 9
    assert drawing.get_size_inches()[0] <= 7.2, "wider than a printed page: the text would be scaled down"
