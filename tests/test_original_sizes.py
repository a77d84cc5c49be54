"""Films of which almost no two have one size, as hospitals and published sets have them, from index to report."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hilum import __main__
from hilum.data.table import Table

SMALL = (
    "data.size=32", "train.epochs=1", "model.weights=none", "model.freeze=none", "split.method=patient",
    "model.architecture=custom_cnn", "train.precision=fp32",
)  # fmt: skip


@pytest.fixture
def hilum(monkeypatch, tmp_path):
    """Runs the command line in this process and in a folder of its own; fails where it does."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hilum", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        assert not end.value.code

    return run


def draw(folder, count):
    """Draw films in class folders, brighter where there is pneumonia, no two of one size."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = ("NORMAL", "PNEUMONIA")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        grey = rng.normal(90 + 60 * (number % 2), 30, (40 + number % 40, 40 + number // 40))
        cv2.imwrite(str(folder / name / f"{number:04d}.png"), np.clip(grey, 0, 255).astype(np.uint8))


def look(hilum):
    for command in ("audit", "explore"):
        hilum("data", command, "table.parquet", "-o", command)
        assert Path(command, f"{command}.html").is_file()


def score(hilum, run, image):
    """Evaluates and explains; gives what each of the metadata alone tells of Pneumonia."""
    hilum("evaluate", run, "--data", "table.parquet", "--split", "all", "-o", "report")
    hilum("explain", run, image, "-o", "maps")

    assert Path("report", "report.html").is_file()
    assert len([*Path("maps").glob("*.png")]) == 1
    metrics = json.loads(Path("report", "metrics.json").read_text(encoding="utf-8"))
    return metrics["subgroups"]["baseline"]["Pneumonia"]["alone"]


def test_drawn_films_of_1500_sizes(hilum, make_sites):
    draw(Path("films"), 1500)
    hilum("data", "index", "films", "-o", "table.parquet")

    look(hilum)
    alone = score(hilum, make_sites().run, "films/NORMAL/0000.png")

    assert alone["image size"]["value"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.real
def test_real_films_of_118_sizes(hilum, shared_data):
    hilum("data", "index", shared_data / "kermany_original", "-o", "all.parquet")
    table = Table.read(Path("all.parquet"))
    # Two sizes occur twice; where none is common, all are told by their area.
    sizes = pd.Series([Image.open(table.location(row).path).size for row in range(len(table))])
    table.select(~sizes.duplicated().to_numpy(bool)).write(Path("table.parquet"))

    look(hilum)
    hilum("train", "kermany-custom-cnn", "--data", "table.parquet", "-o", "run",
          *(word for change in SMALL for word in ("--set", change)))  # fmt: skip
    alone = score(hilum, "run", table.location(0))

    assert alone["image size"]["value"] > 0.8
