"""The usual mistakes at every command: the exit status that `errors.py` promises, and one clear sentence."""

import shlex
import shutil
import sys
from dataclasses import replace

import pytest

from hilum import __main__
from hilum.data.table import Table

RECIPE = "kermany-densenet121"
# What was named is not there, is misspelt, is of another kind, or is there already: 2.
WRONG_USE = [
    ("", ["dta", "data explor a.csv", "bundle shwo run", "train demo --epochs 3", "data index", "predict"]),
    ("data index", ["none", "note.txt", "site", "empty", "odd.csv", "a.csv --as kermani", "a.csv --as kermany",
                    "a.csv --column imgae=image", "a.csv --column image=nope --column finding=Pneumothorax",
                    "a.csv --positive yes", "a.csv --remap old", "a.csv --images none", "a.csv --uncertain maybe",
                    "a.csv -o a.parquet", "a.csv -o new.csv"]),
    ("data merge -o new.parquet", ["none.parquet a.parquet", "site a.parquet", "note.txt a.parquet", "a.parquet"]),
    ("data filter -o new.parquet", ["none.parquet Pneumothorax", "a.csv Pneumothorax", "a.parquet Pneumothorx",
                                    "a.parquet 'age >'", "a.parquet \"view == 'XX'\""]),
    ("data relabel -o new.parquet", ["none.parquet a.csv", "a.parquet none.csv", "a.parquet note.txt"]),
    ("data explore", ["none -o new", "note.txt -o new", "site -o new", "a.csv -o full", "a.csv -o note.txt",
                      "a.csv -o new --limit few"]),
    ("data audit", ["none", "note.txt", "site", "a.csv -o full", "a.parquet --without-leaks new.csv"]),
    ("bundle show", ["none", "site", "note.txt", "run --expect 12"]),
    ("bundle verify", ["none", "site", "note.txt"]),
    ("bundle ensemble -o new", ["run", "run none", "run site"]),
    ("bundle ensemble", ["run run -o full", "run run"]),
    ("bundle recalibrate -o new", ["none --data a.parquet", "run --data none", "run --data note.txt", "run",
                                   "run --data a.parquet", "run --data a.parquet --split test",
                                   "run --data a.parquet --share 2", "run --data own.parquet --split train"]),
    ("bundle recalibrate", ["run --data a.parquet -o full"]),
    ("evaluate", ["none", "site", "note.txt", "run --split tset", "run --data none", "run --data note.txt",
                  "run --data a.parquet", "run --data a.parquet --internal none", "run --internal none",
                  "run -o full", "run -o note.txt", "run --expect 12", "run --data train.parquet --split test"]),
    ("score -o new", ["none.csv --labels a.csv", "note.txt --labels a.csv", "odd.csv --labels a.csv",
                      "a.csv --labels none", "a.csv --labels note.txt", "a.csv --labels a.csv --split tset",
                      "a.csv --labels a.csv --split test", "a.csv --labels a.csv --threshold 2",
                      "a.csv --labels a.csv --prevalence 5", "a.csv --labels a.csv --level picture"]),
    ("score", ["a.csv --labels a.csv -o full"]),
    ("predict", ["none x.png", "site x.png", "run none.png", "run none.zip::x.png", "run empty", "run x.png -o p.txt",
                 "run x.png -o a.csv", "run x.png --maps note.txt", "run x.png --expect 12"]),
    ("explain", ["none x.png", "run none.png", "run empty", "run x.png --finding Mass", "run x.png -o note.txt"]),
    ("runs", ["none", "note.txt", "empty", "run --sort speed"]),
    ("compare -o new", ["run", "run none", "run site", "run run --name one"]),
    ("compare", ["run run -o note.txt", "run run"]),
    ("recipes", ["kermany", "--kyes"]),
    ("demo", ["-o full", "-o note.txt", "--set train.epoch=3", "--set train.epochs=many"]),
    (f"train {RECIPE} -o new --data a.parquet", ["--set train.epoch=3", "--set epochs", "--set train.epochs=0",
                    "--set model.architecture=densnet121", "--set model.weights=none.npz", "--engine tensorflow",
                    "--track wandb", "--devices 0", "--saved-model new.keras", ""]),
    ("train", ["kermani --data a.csv", "none.toml --data a.csv", "bad.toml --data a.csv", RECIPE,
               f"{RECIPE} --data none",
               f"{RECIPE} --data note.txt", f"{RECIPE} --data a.csv -o full", f"{RECIPE} --data a.csv -o run",
               f"{RECIPE} --data a.csv -o full --resume"]),
    ("crossval -o new", ["kermani", RECIPE, f"{RECIPE} --data none", f"{RECIPE} --data note.txt",
                         f"{RECIPE} --data a.csv --folds 1", f"{RECIPE} --data a.csv --set split.folds=3",
                         f"{RECIPE} --data a.csv --set train.epoch=3"]),
    ("crossval", [f"{RECIPE} --data a.csv -o full", f"{RECIPE} --data a.csv -o note.txt", f"{RECIPE} --data a.csv"]),
    (f"tune {RECIPE} --data a.csv", ["", "--vary train.epoch=1,2", "--vary train.epochs", "--vary train.epochs=1..2",
                                     "--vary data.size=32,64", "--vary train.epochs=1,2 --trials 3",
                                     "--vary train.epochs=1,2 --search random", "--vary train.epochs=1,2 -o full",
                                     "--vary train.epochs=1,2 -o note.txt"]),
    (f"tune {RECIPE} --data damaged.parquet -o new",  # before the data are read
     ["--vary train.epochs=1,2 --set model.weights=none.npz", "--vary model.weights=none,none.npz"]),
    ("tune --vary train.epochs=1,2 -o new", ["kermani", RECIPE, f"{RECIPE} --data none", f"{RECIPE} --data site"]),
]  # fmt: skip
# It began, and what was read failed a check: 1.
FAILED_CHECKS = [
    ("data", ["index damaged.parquet -o new.parquet", "filter damaged.parquet Mass -o new.parquet",
              "merge damaged.parquet a.parquet -o new.parquet", "merge a.parquet a.parquet -o new.parquet",
              "filter a.parquet 'Pneumothorax and not Pneumothorax' -o new.parquet",
              "relabel a.parquet damaged.parquet -o new.parquet", "explore damaged.parquet -o new",
              "audit damaged.parquet"]),
    ("bundle", ["show broken", "verify broken", "verify run --expect 00000000", "ensemble run broken -o new",
                "recalibrate broken --data a.parquet -o new", "recalibrate run --data damaged.parquet -o new"]),
    ("evaluate", ["broken", "run --data damaged.parquet"]),
    ("score -o new", ["a.csv --labels damaged.parquet", "damaged.parquet --labels a.csv"]),
    ("", ["predict broken x.png", "explain broken x.png -o new", f"train {RECIPE} --data damaged.parquet -o new",
          f"crossval {RECIPE} --data damaged.parquet -o new",
          f"tune {RECIPE} --data damaged.parquet --vary train.epochs=1,2 -o new"]),
]  # fmt: skip


def commands(groups):
    return [f"{begin} {end}".strip() for begin, ends in groups for end in ends]


@pytest.fixture(scope="module")
def place(make_sites, tmp_path_factory):
    """A folder to run in: a run, one with a damaged bundle, tables, and what is of another kind."""
    folder = tmp_path_factory.mktemp("place")
    sites = make_sites()
    shutil.copytree(sites.run, folder / "run")
    shutil.copytree(sites.run, folder / "broken")
    with (folder / "broken" / "bundle" / "bundle.json").open("a") as file:
        file.write(" ")
    own = Table.read(sites.own)
    own.write(folder / "own.parquet")
    elsewhere = replace(own.sources[0], name="elsewhere")
    frame = own.frame.assign(source="elsewhere", split="train")
    Table(frame, own.findings, (elsewhere,)).write(folder / "train.parquet")
    for name in ("empty", "site", "full"):
        (folder / name).mkdir()
    texts = {
        "a.csv": "image,Pneumothorax,view\na.png,1,PA\nb.png,0,AP\n",
        "odd.csv": "a,b\n1,2\n",
        "bad.toml": "name = ",
        **dict.fromkeys(("note.txt", "x.png", "site/note.txt", "full/note.txt", "damaged.parquet"), "mine"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["hilum", "data", "index", "a.csv", "-o", "a.parquet"])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        assert not ended.value.code
        yield folder


def told(capsys, monkeypatch, command):
    """Exit status, and what was said."""
    monkeypatch.setattr(sys, "argv", ["hilum", *shlex.split(command)])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    return ended.value.code or 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "status"),
    [*((each, 2) for each in commands(WRONG_USE)), *((each, 1) for each in commands(FAILED_CHECKS))],
)
def test_a_mistake_ends_with_its_status_and_one_sentence(place, capsys, monkeypatch, command, status):
    before = sorted(place.rglob("*"))

    found, error = told(capsys, monkeypatch, command)

    assert found == status, error
    sentence = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(sentence) == 1, error
    assert len(sentence[0]) < 500, error
    assert error.rstrip().endswith(sentence[0]) or "Known layouts" in error
    for fault in ("Traceback", "fault of Hilum", "<class", "Usage:", "pydantic"):
        assert fault not in error
    assert sorted(place.rglob("*")) == before
