"""Figures show the arrays they are given, under a title that says the finding."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from hilum.report.drawing import curves, style
from hilum.report.drawing.forest import ForestLayout, ForestRow, Mark, forest, ranked
from hilum.stats import Estimate

NOTHING = np.zeros(0)


def words_of(drawing: Figure) -> list[str]:
    return [text.get_text() for text in drawing.findobj(Text) if isinstance(text, Text) and text.get_text()]


def curve(name: str = "Pneumonia") -> curves.CurvePanel:
    x, y = np.array([0, 0.1, 0.4, 1]), np.array([0, 0.7, 0.9, 1])
    band = (np.linspace(0, 1, 5), np.full(5, 0.2), np.full(5, 0.9))
    return curves.CurvePanel(
        name, "0.9 (0.8–0.95)", x, y, band=band, point=(0.1, 0.7), point_label=("threshold 0.42",)
    )


def test_roc_curve_runs_through_the_points_given() -> None:
    drawing = curves.roc([curve()], title="AUROC 0.900", subtitle="624 images")

    lines = [line.get_xydata() for line in drawing.axes[0].get_lines()]
    assert any(np.array_equal(line, np.column_stack([curve().x, curve().y])) for line in lines)
    assert any(np.array_equal(line, [[0.1, 0.7]]) for line in lines), "the operating point"
    assert {"AUROC 0.900", "624 images", "threshold 0.42"} <= set(words_of(drawing))


def test_precision_recall_draws_steps_and_the_prevalence() -> None:
    shown = curves.CurvePanel("a", "", np.array([0, 0.5, 1]), np.array([1, 0.8, 0.3]), reference=0.3)

    frame = curves.precision_recall([shown], title="t").axes[0]

    levels = [line.get_ydata() for line in frame.get_lines()]
    assert any(np.array_equal(level, [0.3, 0.3]) for level in levels)
    assert any(line.get_drawstyle() == "steps-pre" for line in frame.get_lines())


SHAPES = {
    "high": np.array([[0, 0.01, 0.02, 0.1, 1], [0, 0.8, 0.95, 0.99, 1]]),
    "chance": np.array([[0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0.22, 0.38, 0.62, 0.79, 1]]),
    "below": np.array([[0, 0.3, 0.7, 0.9, 1], [0, 0.05, 0.3, 0.8, 1]]),
    "convex": np.array([[0, 0.1, 0.3, 0.6, 1], [0, 0.5, 0.75, 0.9, 1]]),
    "falling": np.array([[0, 0.3, 0.6, 0.9, 1], [1, 0.9, 0.7, 0.55, 0.4]]),
    "low": np.array([[0, 0.02, 0.1, 0.5, 1], [0.5, 0.3, 0.15, 0.1, 0.06]]),
    "flat": np.array([[0, 0.2, 0.5, 0.8, 1], [0.55, 0.62, 0.58, 0.57, 0.56]]),
    "perfect": np.array([[0, 0.5, 0.95, 0.99, 1], [1, 1, 1, 0.95, 0.6]]),
}


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draw", [curves.roc, curves.precision_recall])
def test_words_stand_clear_of_the_curve_the_reference_and_each_other(draw, shape, place) -> None:
    x, y = SHAPES[shape]
    lines = ("threshold 0.423", "sensitivity 0.988", "specificity 0.901")
    point = (float(x[place]), float(y[place]))
    shown = curves.CurvePanel("a", "", x, y, point=point, point_label=lines, reference=float(y[-1]) % 1)

    frame = draw([shown], title="t").axes[0]

    boxes = [text.get_window_extent() for text in frame.texts]
    assert len(boxes) == 4
    drawn = [
        frame.transData.transform(line.get_path().interpolated(400).vertices) for line in frame.get_lines()
    ]
    for number, box in enumerate(boxes):
        assert not any(other.overlaps(box) for other in boxes[:number])
        assert not any(box.count_contains(vertices) for vertices in drawn)
        assert frame.get_window_extent().count_contains(box.corners()) == 4


def test_reliability_shows_bins_and_their_intervals() -> None:
    panel = curves.ReliabilityPanel(
        "a",
        "",
        np.array([0.1, 0.8]),
        np.array([0.2, 0.7]),
        np.array([0.1, 0.6]),
        np.array([0.3, 0.8]),
        np.array([0.1, 0.1, 0.8]),
    )

    frame = curves.reliability([panel], title="t").axes[0]

    points = [line.get_xydata() for line in frame.get_lines() if line.get_marker() == "o"]
    assert np.array_equal(points[0], [[0.1, 0.2], [0.8, 0.7]])
    intervals = [segment for group in frame.collections for segment in group.get_segments()]  # type: ignore[attr-defined]
    assert np.allclose(intervals, [[[0.1, 0.1], [0.1, 0.3]], [[0.8, 0.6], [0.8, 0.8]]])
    bars = [patch for patch in frame.patches if isinstance(patch, Rectangle) and patch.get_height() > 0]
    assert len(bars) == 2


def test_confusion_matrix_shows_counts_and_per_cent_of_the_row() -> None:
    counts = np.array([[90, 10], [5, 45]])

    drawing = curves.confusion([curves.ConfusionPanel("a", "", ("absent", "present"), counts)], title="t")

    assert {"90", "10", "5", "45", "90.0 %", "10.0 %"} <= set(words_of(drawing))


def test_distribution_is_in_per_cent_of_its_class_and_marks_the_threshold() -> None:
    panel = curves.DistributionPanel("a", "", np.array([0.9, 0.95, 0.9]), np.array([0.1]), 0.42)

    frame = curves.distributions([panel], title="t").axes[0]

    heights = [patch.get_height() for patch in frame.patches if isinstance(patch, Rectangle)]
    assert sum(height for height in heights if height > 0) == pytest.approx(100)
    assert sum(height for height in heights if height < 0) == pytest.approx(-100)
    assert any(np.array_equal(line.get_xdata(), [0.42, 0.42]) for line in frame.get_lines())


def history(name: str) -> dict[str, np.ndarray]:
    """Columns of a history: `old` ones have no AP and F1; `long` ends with its scores close together."""
    epochs = np.arange(1, {"one": 2, "long": 121}.get(name, 9))
    columns = {
        "epoch": epochs,
        "train_loss": 1 / epochs,
        "val_loss": 1.2 / epochs,
        "val_auroc": 1 - 0.3 / epochs,
        "learning_rate": np.where(epochs < 5, 1e-4, 5e-5),
    }
    if name != "old":
        columns |= {"val_average_precision": 1 - 0.31 / epochs, "val_f1": 1 - 0.32 / epochs}
    if name == "flat":  # ticks such as 0.675
        columns["train_loss"], columns["val_loss"] = 0.7 - 0.014 * epochs, 0.68 + 0.004 * epochs
    if name == "gap":
        columns["val_loss"][2], columns["val_f1"][:], columns["val_auroc"][-1] = np.nan, np.nan, np.nan
    return columns


def curves_of(name: str, best_epoch: int | None = 1) -> Figure:
    columns = history(name)
    return curves.learning_curves(
        columns["epoch"],
        losses={"training": columns["train_loss"], "validation": columns["val_loss"]},
        scores={
            shown: columns[key]
            for key, shown in (("val_auroc", "AUROC"), ("val_average_precision", "AP"), ("val_f1", "F1"))
            if key in columns
        },
        learning_rate=columns["learning_rate"],
        best_epoch=best_epoch,
        title="The weights of epoch 1 of 8 were kept",
        subtitle="validation AUROC 0.981 there; validation chose the epoch, so it is no test result",
    )


@pytest.mark.parametrize(
    ("name", "shown"), [("old", {"AUROC"}), ("new", {"AUROC", "AP", "F1"}), ("gap", {"AUROC", "AP"})]
)
def test_learning_curves_name_the_lines_that_there_are(name: str, shown: set[str]) -> None:
    words = set(words_of(curves_of(name)))

    assert words & {"AUROC", "AP", "F1"} == shown
    assert {"training", "validation", "learning rate", "0.0001", "5e−5"} <= words


def test_learning_curves_mark_the_epoch_that_was_kept() -> None:
    drawing = curves_of("new", best_epoch=3)

    losses, _, scores, _ = drawing.axes
    for frame in (losses, scores):
        lines = frame.get_lines()
        assert any(np.array_equal(line.get_xdata(), [3, 3]) for line in lines), "the line"
        assert sum(np.array_equal(line.get_xdata(), [3]) for line in lines) == len(lines) // 2, (
            "a dot a curve"
        )
    assert words_of(drawing).count("kept: 3") == 2


def test_learning_curves_break_where_nothing_is_known() -> None:
    losses = curves_of("gap", best_epoch=None).axes[0]

    drawn = [
        np.asarray(line.get_ydata()) for line in losses.get_lines() if len(np.asarray(line.get_ydata())) == 8
    ]
    assert [np.flatnonzero(np.isnan(line)).tolist() for line in drawn] == [[], [2]]


def test_learning_curves_without_scores_or_a_moving_rate_are_one_panel() -> None:
    columns = history("old")

    drawing = curves.learning_curves(
        columns["epoch"],
        losses={"training": columns["train_loss"]},
        scores={"AUROC": np.full(8, np.nan)},
        learning_rate=np.full(8, 1e-4),
        best_epoch=None,
        title="t",
    )

    assert len(drawing.axes) == 1
    assert "learning rate" not in words_of(drawing)


@pytest.mark.parametrize("name", ["old", "new", "one", "long", "gap", "flat"])
def test_the_words_of_learning_curves_do_not_touch_each_other(name: str) -> None:
    drawing = curves_of(name, best_epoch=len(history(name)["epoch"]))
    style.png(drawing, dpi=100)  # the figure's own: axis labels are placed in pixels
    renderer = drawing.canvas.get_renderer()  # type: ignore[attr-defined]

    texts = [*drawing.texts]
    for frame in drawing.axes:
        texts += [*frame.texts, frame.xaxis.label, frame.yaxis.label]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    touching = [
        (one, other)
        for number, (one, box) in enumerate(boxes)
        for other, second in boxes[number + 1 :]
        if box.overlaps(second)
    ]
    assert not touching
    assert all(box.x0 >= 2 and box.x1 <= drawing.bbox.width for _, box in boxes), "cut off"


def test_forest_is_sorted_and_the_unknown_come_last() -> None:
    rows = [
        ForestRow("low", (Mark(Estimate(0.6, 0.5, 0.7)),), "0.6"),
        ForestRow("none", (Mark(Estimate(None)),), "not estimable"),
        ForestRow("high", (Mark(Estimate(0.9)),), "0.9"),
    ]
    mean = ForestRow("Mean", (Mark(Estimate(0.75, 0.7, 0.8)),), "0.75", gap=0.35)

    layout = ForestLayout(pitch=0.25, top=0.7, left=2, width=3)
    drawing = forest([*ranked(rows), mean], layout, title="t", axis="AUROC")

    height = {text.get_text(): text.get_position()[1] for text in drawing.texts}
    assert height["high"] > height["low"] > height["none"] > height["Mean"]


@pytest.mark.parametrize("number", [2, 3, 5, 14])
def test_small_multiples_do_not_touch_each_other(number: int) -> None:
    drawing = curves.roc([curve("Pleural Thickening") for _ in range(number)], title="t", subtitle="s")
    style.png(drawing, dpi=50)
    renderer = drawing.canvas.get_renderer()  # type: ignore[attr-defined]

    boxes = [text.get_window_extent(renderer) for text in drawing.texts]
    assert len(drawing.axes) == number
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :]), (
        "headings overlap"
    )
    assert all(box.x0 >= 0 and box.x1 <= drawing.bbox.width for box in boxes)


def test_what_cannot_be_drawn_says_so() -> None:
    empty = curves.CurvePanel("Hernia", "0 positives", NOTHING, NOTHING)

    words = words_of(curves.roc([curve(), empty], title="t"))

    assert "not estimable" in words
    assert "0 positives" in words


def test_no_text_is_smaller_than_nine_points() -> None:
    drawing = curves.roc([curve() for _ in range(14)], title="t", subtitle="s")

    sizes = [
        text.get_fontsize() for text in drawing.findobj(Text) if isinstance(text, Text) and text.get_text()
    ]
    assert min(sizes) >= 9
    assert drawing.get_size_inches()[0] <= 7.2, "wider than a printed page: the text would be scaled down"
