"""Every command of docs/data.md runs, in its order, on tiny data sets of the names that it gives."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data.readers import READERS
from hilum.data.table import Table

DATA = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", DATA, re.DOTALL) for line in block.splitlines()]
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,-1.0,,,,1.0\n"
)
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    "00000001_000.png,Cardiomegaly|Pneumothorax,0,1,58,M,PA,2682,2749,0.143,0.143\n"
    "00000002_000.png,No Finding,0,2,8,F,PA,2500,2048,0.171,0.171\n"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder where all commands ran, and what each printed."""
    folder = tmp_path_factory.mktemp("data")
    for name, text in {
        "nih/Data_Entry_2017_v2020.csv": NIH,
        "CheXpert-v1.0-small/train.csv": CHEXPERT,
        "ours.csv": "file,pid,Pneumothorax\na.png,7,Yes\nb.png,8,no\n",
        "radiologists.csv": "image,Pneumothorax\n00000001_000.png,1\n00000002_000.png,0\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran = {line: CliRunner().invoke(app, shlex.split(line)[1:]) for line in COMMANDS}
    return folder, ran


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(results, line):
    _, ran = results
    assert line.startswith("hilum data ")
    assert ran[line].exit_code == 0, ran[line].output


def test_what_the_commands_make(results):
    folder, ran = results
    assert Table.read(folder / "chexpert.parquet").frame["Pneumothorax"].tolist() == [1]
    assert Table.read(folder / "ours.parquet").frame["Pneumothorax"].tolist() == [1, 0]
    assert len(Table.read(folder / "both.parquet")) == 3
    assert len(Table.read(folder / "adults.parquet")) == 1
    assert Table.read(folder / "relabelled.parquet").findings == ("Pneumothorax",)
    relabelled = next(result.stdout for line, result in ran.items() if "relabel" in line)
    assert "positive agreement" in relabelled
    assert "1.000" in relabelled


def test_every_command_has_an_example_in_its_help():
    for command in ("index", "merge", "filter", "relabel", "audit", "explore"):
        printed = CliRunner().invoke(app, ["data", command, "--help"]).stdout
        assert f"hilum data {command} " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--positive", "yes"], "belong to a column map"),
        (["--column", "image"], "not of the form FIELD=COLUMN"),
        (["--column", "imge=file"], "image (did you mean it?)"),
        (["--column", "label=x"], "needs --column image=COLUMN"),
        (["--column", "image=a", "--column", "image=b"], "given twice"),
    ],
)
def test_wrong_column_maps_are_told(tmp_path, arguments, message):
    (tmp_path / "x.csv").write_text("file,tb\na.png,yes\n")
    result = CliRunner().invoke(app, ["data", "index", str(tmp_path / "x.csv"), *arguments])
    assert message in str(result.exception)


def test_every_layout_is_told_of():
    assert len(READERS) == DATA.split("## What")[1].split("\nWhere")[0].count("\n| ") - 2
