import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from hilum import stats
from hilum.cli import app
from hilum.comparison import eligibility
from hilum.comparison.compare import FIGURES, compare
from hilum.data.table import Table
from hilum.errors import DataError, UsageError
from hilum.report.comparison import page as report
from hilum.stats.comparison import mcnemar
from hilum.stats.delong import delong


def run_compare(*folders, **options):
    return compare(list(folders), replicates=100, **options)


def test_a_run_given_twice_is_refused(make_run, tmp_path):
    run = make_run("a")
    (tmp_path / "link").symlink_to(run)

    for again in (run, tmp_path / "link"):
        with pytest.raises(UsageError, match="is given twice"):
            run_compare(run, again)


def test_a_run_against_its_copy_differs_in_nothing(make_run, tmp_path):
    run = make_run("a")
    copy = shutil.copytree(run, tmp_path / "copy" / "a")

    (only,) = run_compare(run, copy).differences

    assert only.model == "a (2)"
    assert {only.metrics[name].value for name in FIGURES} == {0.0}
    assert (only.delong_p, only.delong_holm, only.mcnemar.clustered_p, only.mcnemar_holm) == (1, 1, 1, 1)


def test_swapping_two_runs_turns_the_sign(make_run):
    runs = make_run("a"), make_run("bb", noise=3)

    there, back = run_compare(*runs), run_compare(*reversed(runs))

    (one,), (other,) = there.differences, back.differences
    for name in FIGURES:
        assert one.metrics[name].value == pytest.approx(-other.metrics[name].value)
        assert one.metrics[name].low == pytest.approx(-other.metrics[name].high)
    assert one.delong_p == pytest.approx(other.delong_p)
    (pair,), (turned,) = there.pairs, back.pairs
    assert (pair.first_only, pair.second_only) == (turned.second_only, turned.first_only)


def test_the_tests_are_those_of_stats(make_run):
    comparison = run_compare(make_run("a"), make_run("bb", noise=3))

    first, second = comparison.models
    truth = comparison.labels[:, 0] == 1
    clusters = np.unique(comparison.patients, return_inverse=True)[1]
    scores = np.column_stack([second.probabilities[:, 0], first.probabilities[:, 0]])
    value, _, _, p_value = delong(truth, scores, clusters=clusters).difference(confidence=0.95)
    right = [model.decisions[:, 0] == truth for model in (second, first)]
    (only,) = comparison.differences
    assert only.metrics["auroc"].value == pytest.approx(value)
    assert only.delong_p == pytest.approx(p_value)
    assert only.mcnemar == mcnemar(*right, clusters=clusters)
    (pair,) = comparison.pairs
    assert (pair.second_only, pair.first_only) == (only.mcnemar.first_only, only.mcnemar.second_only)
    assert pair.total == 200


def test_figures_are_those_of_the_evaluation(make_run):
    run = make_run("a")
    stored = json.loads((run / "evaluation" / "metrics.json").read_text())["findings"]["Pneumonia"]

    figures = run_compare(run, make_run("bb", noise=1)).models[0].figures["Pneumonia"]

    assert {name: figures[name].value for name in FIGURES} == pytest.approx(
        {name: stored[name]["value"] for name in FIGURES}
    )


def test_several_models_are_corrected_for(make_run):
    comparison = run_compare(make_run("a"), make_run("bb", noise=3), make_run("ccc", noise=5))

    raw = [one.delong_p for one in comparison.differences]
    assert [one.delong_holm for one in comparison.differences] == pytest.approx(stats.holm(raw).tolist())
    assert [one.model for one in comparison.differences] == ["bb", "ccc"]
    assert len(comparison.pairs) == 3


def test_the_table_and_json_tell_each_model(make_run):
    comparison = run_compare(make_run("a"), make_run("bb", noise=3), names=["first", "second"])

    table = comparison.table()
    assert list(table.index) == ["first", "second"]
    assert table.loc["first", "Engine"] == "torch"
    assert table.loc["first", "AUROC"].startswith("0.9")
    told = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert told["reference"] == "first"
    assert told["models"]["second"]["figures"]["Pneumonia"]["auroc"]["low"] is not None
    # Slope, offset, and the share of a cell in the map.
    assert told["models"]["first"]["parameters"] == 3
    assert comparison.models[0].rate.images == 32
    assert {one.group for one in comparison.exhibits} >= {"disagree", "right"}


def test_other_test_images_are_told_and_left_out(make_run):
    comparison = run_compare(make_run("a"), make_run("bb", noise=1, keep=slice(40, None)))

    assert len(comparison.images) == 160
    assert comparison.warnings[0].text.startswith(
        "The test images differ. Compared on the 160 images in common"
    )
    assert "a 200, bb 160" in comparison.warnings[0].text


@pytest.mark.parametrize(
    ("keep", "message"), [(slice(0, 8), "have 8 images in common"), (slice(0, 0), "no image in")]
)
def test_too_few_images_in_common_are_refused(make_run, keep, message):
    with pytest.raises(DataError, match=message):
        run_compare(make_run("a"), make_run("bb", keep=keep))


def test_a_test_image_in_anothers_training_is_refused(make_run):
    first, second = make_run("a"), make_run("bb", noise=1)
    table = Table.read(second / "table.parquet")
    splits = table.frame["split"].tolist()
    splits[-1] = "train"
    table.with_split(splits).write(second / "table.parquet")

    with pytest.raises(DataError, match="1 of the 200 test images in common stand in the training of bb"):
        run_compare(first, second)


def test_a_patient_in_training_is_told_loudly(make_run):
    first, second = make_run("a"), make_run("bb", noise=1, keep=slice(1, None))
    table = Table.read(second / "table.parquet")
    splits = table.frame["split"].tolist()
    splits[200] = "train"
    table.with_split(splits).write(second / "table.parquet")

    warnings = [*map(str, run_compare(first, second).warnings)]

    assert any(
        line.startswith("Leak: 1 of the 199 images are of patients that bb was trained") for line in warnings
    )
    assert "bb was trained or tuned on test images of others, left out here: 1 of a." in warnings


def test_labels_that_differ_are_refused(make_run):
    first, second = make_run("a"), make_run("bb")
    path = second / "evaluation" / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[3, "label"] = 1 - frame.loc[3, "label"]
    frame.to_parquet(path)

    with pytest.raises(DataError, match="1 of 200 images in common have other labels in bb than in a"):
        run_compare(first, second)


def elsewhere(run, folder, change):
    """Lets a run read its images from another folder, where `change` makes the grey values of each."""
    table = Table.read(run / "table.parquet")
    folder.mkdir()
    for row, name in enumerate(table.frame["image"]):
        Image.fromarray(change(np.asarray(Image.open(table.location(row).path)))).save(folder / name)
    moved = replace(table.sources[0], root=folder)
    Table(table.frame, table.findings, (moved,)).write(run / "table.parquet")


def test_equal_names_of_other_pictures_are_refused(make_run, tmp_path):
    first, second = make_run("a"), make_run("bb", noise=1)
    elsewhere(second, tmp_path / "other", lambda pixels: 255 - pixels)

    with pytest.raises(DataError, match=r"of the same source and name of bb are different pictures"):
        run_compare(first, second)


def test_what_was_matched_is_told(make_run, tmp_path):
    first, second = make_run("a"), make_run("bb", noise=1)
    one_place = run_compare(first, second)
    elsewhere(second, tmp_path / "copies", lambda pixels: pixels)
    two_places = run_compare(first, second)

    told = "Images were matched by source and name; all runs have one split ("
    assert one_place.matched.startswith(told)
    assert one_place.matched.endswith("; the runs read the same files.")
    assert two_places.matched.endswith("; 32 pictures that lie in two places were compared and are the same.")
    assert two_places.to_dict()["matched"] == two_places.matched
    assert not any("matched" in warning for warning in map(str, two_places.warnings))


def test_names_alone_are_warned_of_where_nothing_else_tells():
    def entrant(name, split_hash):
        training = SimpleNamespace(split_hash=split_hash)
        return SimpleNamespace(name=name, manifest=SimpleNamespace(training=training), table=None)

    rows = [np.arange(5)] * 2

    told, sure = eligibility.matched([entrant("a", "1" * 64), entrant("b", "2" * 64)], rows, seed=0)
    assert "the runs' splits differ (a 1111111111111111, b 2222222222222222)" in told
    assert not sure
    assert eligibility.matched([entrant("a", "1" * 64), entrant("b", "1" * 64)], rows, seed=0)[1]


def test_images_that_were_moved_cost_the_maps_alone(make_run, tmp_path):
    runs = make_run("a"), make_run("bb", noise=1)
    for run in runs:
        table = Table.read(run / "table.parquet")
        frame = table.frame.assign(source="own")
        source = type(table.sources[0])("own", tmp_path / "gone", "", "")
        Table(frame, table.findings, (source,)).write(run / "table.parquet")

    comparison = run_compare(*runs)

    assert comparison.exhibits == ()
    assert comparison.models[0].rate is None
    assert any(
        line.startswith("No maps") and "--images DIR" in line for line in map(str, comparison.warnings)
    )


def test_a_run_that_was_not_evaluated_is_named_with_the_command(make_run, tmp_path):
    first, second = make_run("a"), make_run("bb")
    (second / "evaluation" / "metrics.json").unlink()

    with pytest.raises(UsageError, match=f"was not evaluated; run `hilum evaluate {second}` first"):
        run_compare(first, second)
    with pytest.raises(UsageError, match="gone does not exist; give folders that `hilum train -o` finished"):
        run_compare(first, tmp_path / "gone")
    with pytest.raises(UsageError, match="holds no finished run"):
        run_compare(first, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "f" * 64}, "is of bundle ffffffffffffffff"),
        ({"split": "val"}, "not of the run's own test"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(make_run, edit_metrics, changes, message):
    first, second = make_run("a"), make_run("bb")
    edit_metrics(second, **changes)

    with pytest.raises(UsageError, match=message):
        run_compare(first, second)


@pytest.mark.parametrize("names", [["one"], ["same", "same"], ["one", " "]])
def test_names_are_one_a_run(make_run, names):
    with pytest.raises(UsageError, match="give one to each, all different"):
        run_compare(make_run("a"), make_run("bb"), names=names)


def test_one_run_alone_is_refused(make_run):
    with pytest.raises(UsageError, match="number of runs: 1"):
        run_compare(make_run("a"))


def test_other_questions_are_refused():
    entrants = [
        SimpleNamespace(
            name=name, manifest=SimpleNamespace(task=SimpleNamespace(kind="binary"), findings=(finding,))
        )
        for name, finding in (("a", "Edema"), ("b", "Mass"))
    ]

    with pytest.raises(UsageError, match="a answers binary of Edema; b answers binary of Mass"):
        eligibility.check_task(*entrants)


def test_the_command_says_what_differs_and_where_the_page_is(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write", lambda folder, _comparison: folder / "report.html")
    runs = [str(make_run("a")), str(make_run("bb", noise=3))]

    printed = CliRunner().invoke(
        app, ["compare", *runs, "-o", str(tmp_path / "out"), "--name", "x", "--name", "y"]
    )
    told = CliRunner().invoke(app, ["compare", *runs, "-o", str(tmp_path / "out"), "--json"])

    assert printed.exit_code == 0, printed.output
    assert "The AUROC of y is lower than that of x: difference −0." in printed.stdout
    assert f"report: {tmp_path / 'out' / 'report.html'}" in printed.stdout
    assert "warning: y and x are one and the same bundle." in printed.stderr
    assert json.loads(told.stdout)["reference"] == "a"
