"""The page of a study: whole, self-contained, escaped, and true to its trials."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from hilum.recipe import load_recipe
from hilum.report.drawing import style
from hilum.report.tuning import page, plots
from hilum.tuning.study import Study, dimensions

VARY = {
    "train.learning_rate": (1e-5, 1e-2),
    "model.dropout": (0.0, 0.7),
    "train.batch_size": [8, 16, 32, 64],
    "train.optimizer": ["adamw", "sgd"],
    "model.hidden": [[], [64], [128, 64]],
    "train.epochs": (3, 12),
}
HOSTILE = "<script>alert(1)</script>: it broke"


def a_study(folder, *, number=40, planned=40, monitor="val_auroc", vary=VARY, states=True):
    """Trials drawn at random whose figure depends on the learning rate."""
    rng = np.random.default_rng(0)
    base = load_recipe("demo", [f"train.monitor={monitor}"])
    found = dimensions(base, vary, search="tpe")
    rows, curves = [], {}
    for trial in range(1, number + 1):
        point = {}
        for each in found:
            low, high = (
                (np.log([each.low, each.high]) if each.log else (each.low, each.high))
                if not each.choices
                else (0, 0)
            )
            drawn = np.exp(rng.uniform(low, high)) if each.log else rng.uniform(low, high)
            choices = each.choices or (round(drawn) if each.whole else float(drawn),)
            point[each.key] = choices[rng.integers(len(choices))]
        goal = 0.85 - 0.05 * abs(np.log10(point.get("train.learning_rate", 1e-3)) + 3) + rng.normal(0, 0.01)
        goal = 1 - goal if monitor == "val_loss" else goal
        epochs = int(point.get("train.epochs", 6))
        state = (
            rng.choice(["complete", "pruned", "failed"], p=[0.7, 0.2, 0.1])
            if states and trial > 4
            else "complete"
        )
        curve = tuple(goal - (0.3 if monitor != "val_loss" else -0.3) * np.exp(-np.arange(epochs) / 2))
        curve = curve[: 2 if state == "pruned" else 0 if state == "failed" else epochs]
        best = (min if monitor == "val_loss" else max)(curve, default=np.nan)
        curves[trial] = curve
        rows.append(
            {
                "trial": trial,
                "state": state,
                "value": best,
                "best_epoch": len(curve) or pd.NA,
                "epochs": len(curve) or pd.NA,
                "seconds": 3.0,
                "reason": HOSTILE if state == "failed" else "",
                **point,
            }
        )
    shares = {each.key: share for each, share in zip(found, (0.7, 0.1, 0.05), strict=False)}
    images = {"train": (779, 686), "val": (111, 93)}
    return Study(folder, base, found, "tpe", "torch", planned, pd.DataFrame(rows), curves, 2, shares, images)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    page.write(folder, a_study(folder, planned=50))
    return folder


def text_of(folder):
    return (folder / "tune.html").read_text(encoding="utf-8")


def test_the_first_screen_says_what_was_found_on_whom_and_what_is_missing(written):
    study, text = a_study(written, planned=50), text_of(written)
    best = study.ranked.iloc[0]

    first = text[: text.index('id="figures"')]
    assert "Research use only" in first
    assert f"{best['value']:.3f}" in first
    assert "validation images of 93 patients" in first
    assert "40 of 50 trials are done. The same command goes on." in first
    assert "2 begun again after a worker died" in first
    assert "flatters" in first


def test_every_kind_of_figure_is_drawn_and_written(written):
    names = {path.stem for path in (written / "plots").glob("*.png")}

    assert names == {"history", "slices", "slices_2", "parallel", "importances", "curves"}
    assert text_of(written).count('role="img"') == len(names)


def test_text_from_outside_is_escaped_and_nothing_is_loaded_from_elsewhere(written):
    text = text_of(written)

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not [
        link for link in re.findall(r'(?:src|href)="([^"]*)"', text) if not link.startswith(("data:", "#"))
    ]


def test_the_table_is_best_first(written):
    study, text = a_study(written), text_of(written)

    table = text[text.index('id="trials"') :]
    shown = [int(number) for number in re.findall(r'scope="row">Trial (\d+)', table)]
    assert shown == study.ranked["trial"].tolist()


def test_a_best_value_at_the_end_of_what_was_tried_is_said(tmp_path):
    vary = {"train.learning_rate": [1e-3, 1e-4, 1e-5], "train.batch_size": [8, 16]}

    page.write(tmp_path, a_study(tmp_path, vary=vary, states=False))

    assert "The best learning rate, 0.001, lies at the end of what was tried" in text_of(tmp_path)
    assert "The best batch size" not in text_of(tmp_path), "of two values each is an end"


GRID = {
    "train.learning_rate": [1e-3, 1e-4, 1e-5],
    "train.batch_size": [8, 16],
    "model.dropout": [0.2, 0.5],
}
STUDIES = {
    "a grid of one": {"number": 1, "planned": 1, "vary": {"train.batch_size": [8]}, "states": False},
    "two choices, one trial each": {"number": 2, "vary": {"train.seed": [1, 2]}, "states": False},
    "a grid": {"number": 12, "planned": 12, "vary": GRID, "states": False},
    "ranges": {"number": 12, "vary": {"model.dropout": (0.0, 0.7)}, "states": False},
    "failed and ended early": {"number": 24},
}


@pytest.mark.parametrize("name", STUDIES)
def test_captions_name_the_marks_that_are_drawn_and_no_others(tmp_path, name):
    study = a_study(tmp_path, **STUDIES[name])
    if name == "two choices, one trial each":  # as a grid would
        study.trials["train.seed"] = [1, 2]

    for plot in plots.plots(study):
        lines = [line for frame in plot.figure.axes for line in frame.lines if len(line.get_xdata())]
        marks = {line.get_marker() for line in lines}
        colours = {line.get_color() for line in lines}
        widths = {line.get_linewidth() for line in lines if line.get_linestyle() != "None"}
        rings = [line for line in lines if line.get_fillstyle() == "none" and line.get_color() == style.INK]
        assert ("Dash:" in plot.caption) == ("_" in marks), plot.name
        if plot.name != "parallel":
            assert ("ing: " in plot.caption or "ring" in plot.caption) or not rings, plot.name
        if plot.name == "curves":
            assert ("Orange:" in plot.caption) == (style.ORANGE in colours)
            assert ("Bold:" in plot.caption) == (len(widths) > 1)
        if plot.name == "parallel":
            assert ("blue:" in plot.caption) == (style.BLUE in colours)


def test_a_figure_of_trials_has_a_mark_of_its_own_for_each_end(tmp_path):
    study = a_study(tmp_path, number=24)

    told = [text.get_text() for text in plots.history(study, title="t").texts]

    assert {"●", "○", "✕"} <= set(told)
    assert "ended early" in told


@pytest.mark.parametrize("monitor", ["val_loss", "val_auroc"])
def test_one_trial_alone_is_enough_for_a_page(tmp_path, monitor):
    study = a_study(tmp_path, number=1, monitor=monitor, vary={"train.batch_size": [8, 16]})

    page.write(tmp_path, study)

    assert next(plots.plots(study)).name == "history"
    assert ("Less is better" in text_of(tmp_path)) == (monitor == "val_loss")


@pytest.mark.parametrize("monitor", ["val_loss", "val_auroc"])
def test_a_best_trial_that_ranks_like_a_constant_is_named_so(tmp_path, monitor):
    study = a_study(tmp_path, number=6, planned=6, monitor=monitor)
    poor = dataclasses.replace(study, trials=study.trials.assign(val_auroc=0.489))

    pages = [page.write(tmp_path / str(place), each).read_text() for place, each in enumerate((study, poor))]

    assert study.nothing_learned == ""
    assert poor.nothing_learned.startswith("Nothing was learned: the best trial's val AUROC is 0.4890")
    assert ["Nothing was learned" in page for page in pages] == [False, True]
