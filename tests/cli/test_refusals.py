"""What is refused before anything is read, run or written over."""

import json

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data import readers
from hilum.errors import HilumError, UsageError
from hilum.recipe import load_recipe

CSV = "image,Pneumothorax,view\na.png,1,PA\nb.png,0,AP\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, with a file of labels, tables made of it, and files of many kinds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.csv").write_text(CSV)
    for name in ("table", "a", "b"):
        refused = CliRunner().invoke(app, ["data", "index", "ours.csv", "-o", f"{name}.parquet"])
        assert refused.exit_code == 0
    for name in ("w.h5", "w.txt", "p.csv", "m.keras", "c.boxes.parquet", "full/notes.txt", "site/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    begun = load_recipe("nih-infiltration").flat()
    space = {"--vary train.epochs": "1, 2", "--search": "grid", "--prune": False, "--engine": "torch"}
    plan = {"format": 1, "folds": 5, "repeats": 1, "engine": "torch", "data": "1f", "recipe": begun}
    for name, content in (
        ("study/study.json", {**begun, **space, "their labels": "2e"}),
        ("cv/crossval.json", plan),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "metrics.json").write_text(json.dumps({"split": "test", "internal": True}))
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train nih-infiltraton", "nih-infiltration (did you mean it?)"),
        ("train nih-infiltration --set epochs=3", "did you mean train.epochs?"),
        ("train nih-infiltration --set model.weights=none.npz", "nor a file that exists"),
        ("train nih-infiltration --set model.weights=w.h5", "torch engine reads weights from .safetensors and .npz"),
        ("train nih-infiltration --set model.architecture=custom_cnn", "has no ImageNet weights"),
        ("train nih-infiltration --engine keras --set model.architecture=vit_small", "keras engine has no"),
        ("train nih-infiltration --engine keras --set model.weights=w.txt", "keras engine reads"),
        ("train nih-infiltration --set split.method=list --set split.list=l.csv", "there is no file l.csv"),
        ("train nih-infiltration -o full", "already holds something else"),
        ("train nih-infiltration --resume -o full", "holds no run to resume"),
        ("evaluate none", "none"),
        ("evaluate none --split tset", "train, val, test, all expected"),
        ("evaluate none -o full", "something else than such a report"),
        ("bundle recalibrate none -o new", "none"),
        ("crossval nih-infiltration -o full", "already holds something else (no crossval.json)"),
        ("crossval nih-infiltration -o p.csv", "p.csv is a file"),
        ("crossval nih-infiltration -o cv --folds 4", "was begun with folds 5, not 4"),
        ("crossval nih-infiltration -o cv --set train.epochs=3", "was begun with train.epochs = "),
        ("crossval nih-infiltration -o cv --engine keras", "was begun with engine torch, not keras"),
        ("crossval nih-infiltration -o new --set split.folds=3", "cross-validation sets split.folds"),
        ("crossval nih-infiltration -o new --set model.weights=none.npz", "nor a file that exists"),
        ("tune nih-infiltration --vary train.epochs=1,2 -o full", "full holds something else"),
        ("tune nih-infiltration --vary train.epochs=1,2 -o p.csv", "p.csv is a file"),
        (
            "tune nih-infiltration --vary train.epochs=1,3 -o study",
            "was begun with --vary train.epochs = 1, 2, not 1, 3",
        ),
        (
            "tune nih-infiltration --vary train.epochs=1,2 -o study --set train.seed=9",
            "was begun with train.seed = ",
        ),
    ],
)  # fmt: skip
def test_what_needs_no_data_is_told_before_they_are_read(place, monkeypatch, command, message):
    def read(*_, **__):
        raise AssertionError("the data were read")

    monkeypatch.setattr(readers, "read", read)

    refused = CliRunner().invoke(app, [*command.split(), "--data", "site"])

    assert isinstance(refused.exception, HilumError), refused.exception
    assert message in str(refused.exception)


@pytest.mark.parametrize("command", ["train demo", "crossval demo -o cv2"])
def test_data_that_are_not_there_are_told_before_a_framework_is_loaded(place, monkeypatch, command):
    def load(*_, **__):
        raise AssertionError("an engine was loaded")

    for user in ("train", "crossval"):
        monkeypatch.setattr(f"hilum.training.{user}.load_engine", load)

    refused = CliRunner().invoke(app, [*command.split(), "--data", "nowhere"])

    assert "there is no file or folder nowhere" in str(refused.exception)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data index ours.csv", "-o table.parquet is there already; give another file, or remove it first"),
        ("data index ours.csv -o a.parquet", "a.parquet is there already"),
        ("data index ours.csv -o c.parquet", "c.boxes.parquet is there already"),
        ("data index ours.csv -o c.csv", "must end in .parquet"),
        ("data filter a.parquet Pneumothorax -o a.parquet", "a.parquet is what the command reads"),
        ("data filter a.parquet Pneumothorax -o ./a.parquet", "a.parquet is what the command reads"),
        ("data filter a.parquet Pneumothorax -o b.parquet", "b.parquet is there already"),
        ("data merge a.parquet b.parquet -o b.parquet", "b.parquet is what the command reads"),
        ("data relabel a.parquet ours.csv -o a.parquet", "a.parquet is what the command reads"),
        ("data explore ours.csv -o full", "something else than such a report (no explore.html)"),
        ("data explore ours.csv -o p.csv", "-o p.csv is a file"),
        ("data audit ours.csv -o full", "something else than such a report (no audit.html)"),
        (
            "data audit a.parquet --without-leaks a.parquet",
            "--without-leaks a.parquet is what the command reads",
        ),
        ("score p.csv --labels ours.csv -o full", "something else than such a report (no report.html)"),
        ("score p.csv --labels ours.csv -o own", "holds the report of a model's own test"),
        ("evaluate none --split val -o own", "holds the report of a model's own test"),
        ("predict none x.png -o p.csv", "-o p.csv is there already"),
        ("predict none x.png --maps p.csv", "--maps p.csv is a file"),
        (
            "train nih-infiltration --engine keras --saved-model m.keras",
            "--saved-model m.keras is there already",
        ),
    ],
)
def test_nothing_is_written_over(place, command, message):
    before = contents(place)

    refused = CliRunner().invoke(app, command.split())

    assert isinstance(refused.exception, HilumError), refused.output
    assert message in str(refused.exception)
    assert contents(place) == before


@pytest.mark.parametrize(
    "command",
    [
        "data index ours.csv -o p.csv/t.parquet",
        "data merge a.parquet b.parquet -o p.csv/t.parquet",
        "data filter a.parquet Pneumothorax -o p.csv/t.parquet",
        "data relabel a.parquet ours.csv -o p.csv/t.parquet",
        "data explore ours.csv -o p.csv/new",
        "data audit ours.csv -o p.csv/new",
        "data audit ours.csv --without-leaks p.csv/t.parquet",
        "score p.csv --labels ours.csv -o p.csv/new",
        "evaluate none -o p.csv/new",
        "predict none x.png -o p.csv/new.csv",
        "predict none x.png --maps p.csv/new",
        "explain none x.png -o p.csv/new",
        "compare none none -o p.csv/new",
        "train demo -o p.csv/new",
        "crossval demo -o p.csv/new",
        "tune demo --vary train.epochs=1,2 -o p.csv/new",
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_any_work(place, command):
    refused = CliRunner().invoke(app, command.split())

    assert isinstance(refused.exception, UsageError), refused.output
    assert "cannot be written in p.csv: not a directory" in str(refused.exception).replace(f"{place}/", "")


def test_a_report_of_the_same_kind_is_replaced(place):
    commands = [["data", "audit", "ours.csv", "-o", "audit"]] * 2

    first, second = (CliRunner().invoke(app, command) for command in commands)

    assert (first.exit_code, second.exit_code) == (0, 0), second.output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train demo --engine tensorflow", "'tensorflow' is not one of 'torch', 'keras'"),
        ("data explore ours.csv --limit few", "should be a whole number (got 'few')"),
        ("score p.csv --labels ours.csv --threshold 2", "should be less than or equal to 1 (got '2')"),
    ],
)
def test_arguments_are_refused_in_words_for_users(command, message):
    refused = CliRunner().invoke(app, command.split())

    assert refused.exit_code == 2
    assert message in refused.output
    assert "Value error" not in refused.output
    assert "Input should" not in refused.output


def test_a_folder_in_place_of_a_table_names_what_makes_one(place):
    refused = CliRunner().invoke(app, ["data", "filter", "site", "Mass", "-o", "n.parquet"])

    assert "`hilum data index site -o table.parquet`" in str(refused.exception)
