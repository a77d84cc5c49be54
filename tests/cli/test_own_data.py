"""Training on a folder of one's own without a recipe."""

import sys

import numpy as np
import pytest
from PIL import Image

from hilum import __main__
from hilum.recipe import load_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures of each of two classes that no vocabulary knows, bright ones and dark ones."""
    root, random = tmp_path_factory.mktemp("eigene"), np.random.default_rng(0)
    for name, level in (("Rundherd, groß", 60), ("Stauung", 180)):
        (root / name).mkdir()
        for number in range(12):
            grey = random.normal(level, 20, (48, 40 + number)).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(root / name / f"{number}.png")
    return root


TINY = ["--set", "model.architecture=custom_cnn", "--set", "model.weights=none", "--set", "data.size=32",
        "--set", "train.epochs=2"]  # fmt: skip


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command; gives its exit status, and what it printed and said."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilum", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_a_dry_run_shows_the_split_and_prints_a_recipe_that_can_be_given_again(folder, run, tmp_path):
    status, out, err = run("train", "--data", folder, "--dry-run")
    assert status == 0
    shown = {
        line.split()[0]: line.split()[1:] for line in err.splitlines() if line and not line.startswith(" ")
    }
    assert sum(map(int, shown["images"])) == sum(map(int, shown["patients"])) == 24
    (tmp_path / "my.toml").write_text(out, encoding="utf-8")
    assert load_recipe(tmp_path / "my.toml").task.findings == ("Rundherd, groß", "Stauung")
    assert not (tmp_path / "runs").exists()


def test_findings_that_no_vocabulary_knows_are_trained_evaluated_and_explained(folder, run, tmp_path):
    status, _, err = run("train", "--data", folder, "-o", tmp_path / "run", *TINY)
    assert status == 0, err
    assert load_recipe(tmp_path / "run" / "recipe.toml").task.kind == "multiclass"
    status, out, err = run("evaluate", tmp_path / "run")
    assert status == 0, err
    assert "Rundherd, groß" in out
    film = folder / "Stauung" / "3.png"
    assert run("predict", tmp_path / "run", film, "-o", tmp_path / "p.csv")[0] == 0
    assert "Stauung" in (tmp_path / "p.csv").read_text(encoding="utf-8")
    assert run("explain", tmp_path / "run", film, "-o", tmp_path / "maps")[0] == 0
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2


def test_labels_in_a_table_of_their_own(folder, run, tmp_path):
    lines = [f"Stauung/{number}.png,{number % 2}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("image,Hernia\n" + "\n".join(lines), encoding="utf-8")
    options = ["--data", folder, "--labels", tmp_path / "labels.csv", "--as", "csv"]
    columns = ["--dry-run"]
    status, out, err = run("train", *options, *columns)
    assert status == 0, err
    assert 'findings = ["Hernia"]' in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train"], "give --data"),
        (["train", "{folder}"], "is data and not a recipe; give it with --data"),
        (
            ["train", "--data", "{folder}/Stauung/1.png", "--labels", "{folder}/Stauung/2.png"],
            "--labels names the CSV",
        ),
        (["train", "multilabel"], "give --data"),
        (["train", "--data", "{folder}", "--set", "train.epoch=3"], "train.epochs"),
    ],
)
def test_mistakes_are_told_in_a_line(folder, run, arguments, told):
    status, _, err = run(*(argument.format(folder=folder) for argument in arguments))
    assert status == 2
    assert told in err.splitlines()[-1]
