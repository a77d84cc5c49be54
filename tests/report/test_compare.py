"""The page of a comparison, its pictures and its tables, for each kind of task."""

import csv
import html
import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.comparison import paired
from hilum.comparison.compare import FIGURES, Compared, Comparison, Exhibit
from hilum.comparison.speed import Rate
from hilum.evaluation.external import ACCURACY, MEAN
from hilum.notices import notice
from hilum.recipe import Task
from hilum.recipe.findings import NIH_FINDINGS
from hilum.report.comparison import page as report, plots
from hilum.report.drawing import model_panels, overlays, style
from hilum.stats import Resampling

PICTURES = (
    "roc_comparison", "pr_comparison", "confusion_matrix_comparison", "learning_curves", "gradcam_visualizations",
    "metrics_comparison", "difference_comparison",
)  # fmt: skip
HOSTILE = '"><script>alert(1)</script>'


def simulate(task, names, make_case, *, findings=("Pneumonia",), number=160, seed=0):
    """A comparison of models that are the worse the later they are named."""
    rng = np.random.default_rng(seed)
    count, classes = len(findings), task == "multiclass"
    patients = np.array([f"s:{row // 2}" for row in range(number)])
    truth = rng.integers(0, count, number)
    labels = np.eye(count)[truth] if classes else (rng.random((number, count)) < 0.35).astype(float)
    models = []
    for place, name in enumerate(names):
        logits = (labels * 2 - 1) * (1.6 - 0.2 * place) + rng.normal(size=labels.shape)
        weights = np.exp(logits)
        probabilities = weights / weights.sum(axis=1, keepdims=True) if classes else weights / (1 + weights)
        thresholds = np.zeros(0) if classes else np.full(count, 0.4)
        options = {"resampling": stats.Resampling(clusters=patients, replicates=100)}
        if classes:
            scores = stats.evaluate_classes(truth, probabilities, names=findings, **options)
            by = scores.classes
        else:
            scores = by = stats.evaluate(
                labels, probabilities, thresholds=thresholds, findings=findings, **options
            )
        figures = {finding: dict(by.findings[finding].metrics) for finding in findings}
        if count > 1:
            figures[MEAN] = dict(by.macro.metrics)
        if classes:
            figures[MEAN][ACCURACY] = scores.accuracy
        epochs = np.arange(1, 6 + place)
        history = pd.DataFrame(
            {
                "epoch": epochs,
                "train_loss": 1 / epochs,
                "val_loss": 1.1 / epochs,
                "val_auroc": 1 - 0.3 / epochs,
            }
        )
        models.append(
            Compared(
                name=name, folder=Path(), bundle="ab" * 32, engine="torch", architecture="densenet121", size=224,
                parameters=7_000_000, epochs=len(epochs), best_epoch=4, seconds=100.0, monitor="val_auroc",
                history=history, tested=number, test_reads=1, probabilities=probabilities,
                decision=DecisionRule(tuple(thresholds) or None, "Youden's J"), figures=figures,
                rate=Rate(50.0, 1.0, 0.9, 1.1, 32, "2 cores"),
            )
        )  # fmt: skip
    differences = [
        one
        for model in models[1:]
        for one in paired.differences(
            model, models[0], labels, patients, findings=findings, resampling=Resampling(replicates=100)
        )
    ]
    truth, threshold = (findings[0], None) if classes else ("", 0.4)
    cases = tuple(
        replace(
            make_case(strength=1 + place, finding=findings[0], truth=truth, threshold=threshold),
            places=(7, 7),
        )
        for place in range(len(names))
    )
    exhibits = tuple(
        Exhibit(
            group,
            "a.png",
            findings[0],
            cases,
            sides,
            (findings[0] if classes else "present",) * len(names),
            (49.0,) * len(names),
        )
        for group, sides in (
            ("disagree", (True, *(False,) * (len(names) - 1))),
            ("right", (True,) * len(names)),
        )
    )
    return Comparison(
        task=Task(kind=task, findings=findings), data="simulated",
        images=np.array([f"{row}.png" for row in range(number)]),
        patients=patients, labels=labels, models=tuple(models), differences=tuple(paired.corrected(differences)),
        pairs=tuple(paired.pair(*two, labels) for two in combinations(models, 2)), exhibits=exhibits,
        recipes={"train.seed": dict(zip(names, range(len(names)), strict=True))}, matched="Matched by hand.",
        warnings=(notice("choose-by-validation"),),
        citations=("Nobody (free)",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def binary(make_case):
    return simulate("binary", ("one", f"two {HOSTILE}"), make_case)


@pytest.fixture(scope="module")
def written(binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    assert report.write(folder, binary) == folder / "report.html"
    return folder


def test_everything_is_written_under_its_name(written):
    assert {path.name for path in written.iterdir()} == {
        "report.html", "performance_metrics.csv", "comparison.json", *(f"{name}.png" for name in PICTURES),
    }  # fmt: skip
    assert all((written / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in PICTURES)


def test_the_page_tells_the_difference_and_escapes_names(written, binary):
    text = (written / "report.html").read_text(encoding="utf-8")

    assert HOSTILE not in text
    assert "Research use only" in text
    assert "Choose a model by validation" in text
    (verdict,) = plots.verdicts(binary)
    assert verdict.split(": difference ")[1][:20] in text
    assert not re.findall(r"(?:src|href)=\"http", text)


def test_the_spreadsheet_holds_figures_and_differences(written, binary):
    text = (written / "performance_metrics.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))

    assert [row["Model"] for row in rows] == [model.name for model in binary.models]
    assert float(rows[0]["AUC"]) == pytest.approx(
        binary.models[0].figures["Pneumonia"]["auroc"].value, rel=1e-5
    )
    assert rows[0]["AUC_difference"] == ""
    (only,) = binary.differences
    assert float(rows[1]["AUC_difference_low"]) == pytest.approx(only.metrics["auroc"].low, rel=1e-5)
    assert float(rows[1]["delong_p"]) == pytest.approx(only.delong_p, rel=1e-5)


def test_json_is_the_comparison(written, binary):
    told = json.loads((written / "comparison.json").read_text(encoding="utf-8"))

    assert told == json.loads(json.dumps(binary.to_dict()))


@pytest.mark.parametrize(
    ("task", "findings", "number"),
    [
        ("multilabel", NIH_FINDINGS[:6], 3),
        pytest.param("multilabel", NIH_FINDINGS, 7, marks=pytest.mark.slow),
        ("multiclass", ("No Finding", "Bacterial Pneumonia", "Viral Pneumonia"), 2),
    ],
)
def test_every_task_has_its_page_and_nothing_is_cut_off(
    make_case, task, findings, number, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(style, "png", lambda drawing: drawn.append(drawing) or b"")
    comparison = simulate(task, [f"model {place}" for place in range(number)], make_case, findings=findings)

    text = report.write(tmp_path, comparison).read_text(encoding="utf-8")

    assert len(drawn) == len(PICTURES)
    for drawing in drawn:
        width, height = drawing.get_size_inches()
        drawing.canvas.draw()
        box = drawing.get_tightbbox()
        assert min(box.x0, box.y0) > -0.03
        assert box.x1 < width + 0.03
        assert box.y1 < height + 0.03
    assert f"AUROC by {'class' if task == 'multiclass' else 'finding'}" in text
    assert "Mean AUROC from " in text
    assert ("Kappa" in text) == (task == "multilabel")


def test_models_without_history_have_no_learning_curves(binary):
    bare = replace(binary, models=tuple(replace(model, history=None) for model in binary.models))

    assert list(plots.learning_curves(bare)) == []


def test_a_page_without_histories_is_whole(binary, tmp_path):
    bare = replace(binary, models=tuple(replace(model, history=None) for model in binary.models))

    html = report.write(tmp_path, bare).read_text(encoding="utf-8")

    assert "How they were trained" not in html
    assert html.rstrip().endswith("</html>")


def test_rates_are_whole_numbers_with_thousands(binary, tmp_path):
    fast = replace(binary.models[0], rate=Rate(1020.4, 1.0, 0.9, 1.1, 32, "2 cores"))

    html = report.write(tmp_path, replace(binary, models=(fast, binary.models[1]))).read_text(
        encoding="utf-8"
    )

    assert ">1,020</td>" in html


def test_curves_that_coincide_both_show_and_the_caption_says_so(binary):
    first, second = binary.models
    twin = replace(binary, models=(first, replace(second, history=first.history)))

    drawn = {plot.name: plot for plot in (*plots.curves(twin), *plots.learning_curves(twin))}

    lines = [line for line in drawn["learning_curves"].figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert lines[0].get_zorder() < lines[1].get_zorder()
    marks = [line.get_markersize() for line in drawn["learning_curves"].figure.axes[0].lines[1::2]]
    assert marks[0] > marks[1]
    assert plots.DASHED_CLOSE in drawn["learning_curves"].caption
    assert plots.DASHED not in drawn["roc_comparison"].caption


def test_curves_of_epochs_that_hide_each_other_are_dashed_and_their_markers_both_show():
    x = np.arange(1.0, 9)
    under, over, apart = 0.99 - 0.4 / x, 0.985 - 0.4 / x, 0.6 + 0.02 * x

    drawing = overlays.epochs(
        [("Validation AUROC", [(x, under), (x, over), (x, apart)])],
        [8, 8, 8],
        ["a", "b", "c"],
        title="t",
        subtitle="s",
    )

    lines = drawing.axes[0].lines
    assert [line.get_linestyle() for line in lines[::2]] == ["-", "--", "-"]
    sizes = [line.get_markersize() for line in lines[1::2]]
    assert sizes[0] > sizes[1] == sizes[2]
    assert overlays.turns([(x, under), (x, over)]) == ["-", "-"], (
        "other curves are dashed only where they coincide"
    )


def test_decisions_at_one_place_are_drawn_largest_first():
    x = np.linspace(0, 1, 5)
    points = [(0.1, 0.9), (0.11, 0.9), (0.5, 0.9)]
    panel = overlays.Overlay("Mass", tuple(overlays.Line(x, x**0.3, None, point, "") for point in points))

    drawing = overlays.curves([panel], ["a", "b", "c"], title="t", subtitle="s", labels=("x", "y"))

    sizes = [line.get_markersize() for line in drawing.axes[0].lines if line.get_marker() != "None"]
    assert sizes[0] > sizes[1] == sizes[2]


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [(0.97, 0.995, (0.97, 1.0)), (0.55, 0.93, (0.5, 1.0)), (0.991, 0.992, (0.99, 1.0))],
)
def test_the_axis_of_a_score_fits_its_curves_and_no_ripple_looks_like_a_wave(low, high, ends):
    x = np.arange(1.0, 5)
    lines = [(x, np.array([low, high, low, high]))]

    drawing = overlays.epochs([("Validation AUROC", lines)], [2], ["a"], title="t", subtitle="s")

    assert drawing.axes[0].get_ylim() == pytest.approx(ends)


def test_a_shorter_training_lies_over_the_one_that_went_on():
    x = np.arange(1.0, 9)
    shorter, longer, other = (x[:5], 1 / x[:5]), (x, 1 / x), (x, 1.2 / x)

    styles = overlays.turns([shorter, longer, other, None])

    assert styles[1:] == ["-", "-", "-"]
    assert styles[0] == (-overlays.DASH, (overlays.DASH, overlays.DASH))


def test_each_model_has_a_scale_of_its_own_that_the_picture_names(binary, written):
    limits = model_panels.limits_of(binary.exhibits)
    drawing = model_panels.explained(binary.exhibits, ["one", "two"], title="t")

    told = " ".join(text.get_text() for text in drawing.texts)
    ticks = [label.get_text() for frame in drawing.axes for label in frame.get_xticklabels()]
    page = html.unescape((written / "report.html").read_text(encoding="utf-8"))
    assert limits == (1, 2), "as strong as their maps"
    assert "Thin line: half of the model's scale" in told
    assert "has its own scale under its name" in told
    assert "7 × 7 places." in told
    assert {"+1", "+2"} <= set(ticks)
    assert "The thin line runs where it is half of the scale's end." in page
    for limit in limits:
        assert f"from minus {limit:g} to plus {limit:g} logits of a whole image" in page
    assert "They are larger than those of each model's own report" in page
    assert page.count("logit of a whole image; 7 × 7 places, 49 times those of its own report") == 2


def test_a_models_colour_is_the_figures_own_in_the_dark_and_in_print(written):
    page = (written / "report.html").read_text(encoding="utf-8")

    swatches = re.findall(r'class="swatch" style="background: ([^"]*)"', page)
    css = page[page.index(".swatch {") :]
    assert set(swatches) == {"var(--figure-blue, #0072b2)", "var(--figure-vermillion, #d55e00)"}
    assert "print-color-adjust: exact" in css[: css.index("}")]


def test_a_key_takes_as_many_lines_as_it_needs():
    assert overlays.key_height(["a", "b"]) == pytest.approx(0.19)
    assert overlays.key_height(["a name of some length"] * 7) > 0.3


def test_figures_have_names_of_their_own():
    names = [plots.short(name) for name in FIGURES]

    assert len(set(names)) == len(FIGURES)
    assert set(model_panels.GROUPS) == {"disagree", "right", "wrong"}
