"""Commands that read tables, folders and CSV files alike."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data.table import Table
from hilum.errors import UsageError


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_folders_and_csv_files_are_merged_without_being_indexed_first(tmp_path):
    for name in ("Mass", "Normal"):
        (tmp_path / "site" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "site" / name / "a.png")
    (tmp_path / "other.csv").write_text("image,label\nb.png,Edema\n")

    result = run("data", "merge", tmp_path / "site", tmp_path / "other.csv", "-o", tmp_path / "both.parquet")

    assert result.exit_code == 0, result.output
    assert [source.name for source in Table.read(tmp_path / "both.parquet").sources] == ["site", "other"]


@pytest.mark.parametrize("column", ["film", "image=", "patient=film"])
def test_the_column_of_predictions_is_that_of_their_images(tmp_path, column):
    (tmp_path / "p.csv").write_text("film,Mass\na.png,0.5\n")

    result = run("score", tmp_path / "p.csv", "--labels", tmp_path / "p.csv", "--column", column)

    assert isinstance(result.exception, UsageError)
    assert "not of the form image=COLUMN" in str(result.exception)
