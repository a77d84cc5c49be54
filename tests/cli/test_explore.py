"""`hilum data explore`: what it takes, what it writes and what it refuses."""

import json
import sys

import pytest

from hilum import __main__
from hilum.data import phantom


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore") / "phantoms"
    table = phantom.generate(folder, num_images=8, size=64, seed=5)
    table.with_split(["train"] * 5 + ["test"] * 3).write(folder / "table.parquet")
    return folder


@pytest.fixture
def hilum(capsys, monkeypatch):
    """Runs `hilum data explore` in this process; gives exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilum", "data", "explore", *map(str, arguments)])
        status = 0
        try:
            __main__.main()
        except SystemExit as exit_:
            status = exit_.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_table_becomes_a_page_with_pictures_and_numbers(phantoms, tmp_path, hilum):
    status, out, error = hilum(phantoms / "table.parquet", "-o", tmp_path / "out")

    assert status == 0
    assert out.splitlines()[-1] == f"page: {tmp_path / 'out' / 'explore.html'}"
    assert "Research use only" in error
    assert "<h1>table</h1>" in (tmp_path / "out" / "explore.html").read_text()
    assert (tmp_path / "out" / "dataset_distribution.png").is_file()


def test_json_prints_what_is_written(phantoms, tmp_path, hilum):
    status, out, _ = hilum(phantoms / "table.parquet", "-o", tmp_path, "--limit", "1", "--json")

    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "explore.json").read_text())
    assert json.loads(out)["pixels"]["limit_a_class"] == 1


def test_a_runs_folder_is_explored_by_its_table(phantoms, tmp_path, hilum):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").touch()
    for name in ("table.parquet", "table.boxes.parquet"):
        (run / name).write_bytes((phantoms / name).read_bytes())

    status, out, _ = hilum(run, "-o", run / "explored", "--limit", "0", "--json")

    assert status == 0
    assert {part: each["images"] for part, each in json.loads(out)["splits"].items()} == {
        "train": 5,
        "test": 3,
    }


def test_wrong_use_is_told_in_a_line(phantoms, tmp_path, hilum):
    (tmp_path / "file").touch()
    for arguments, message in (
        ((phantoms / "table.parquet", "-o", tmp_path / "file"), "is a file; give a folder"),
        ((phantoms, "-o", phantoms / "out"), "the pictures would be taken for radiographs"),
        ((tmp_path / "nowhere", "-o", tmp_path / "out"), "there is no file or folder"),
        ((phantoms / "table.parquet", "-o", tmp_path / "out", "--limit", "-1"), "'--limit'"),
        ((phantoms / "table.parquet", "-o", tmp_path / "out", "--as", "nih"), "is a table already"),
    ):
        status, out, error = hilum(*arguments)
        assert (status, out) == (2, ""), arguments
        assert message in error
        assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    assert not (phantoms / "out").exists()
