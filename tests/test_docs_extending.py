"""The examples of docs/extending.md, added to a copy of Hilum and run there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n# (new file|at the end of): (\S+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The folder of the copy's packages."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for kind, name, code in EXAMPLES:
        path = folder / name
        assert path.exists() == (kind == "at the end of"), name
        with path.open("a", encoding="utf-8") as file:
            file.write(code if kind == "new file" else f"\n\n{code}")
    return folder / "src"


@pytest.fixture
def run(extended, tmp_path):
    """Runs code with the extended Hilum, in a fresh process and an empty folder; gives what it prints as JSON."""

    def run(code):
        environment = {**os.environ, "PYTHONPATH": str(extended), "HILUM_CACHE": str(tmp_path / "cache")}
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def test_every_example_says_where_it_goes():
    assert len(EXAMPLES) == PAGE.count("```python") == 8


READER = """
import json
from pathlib import Path
import numpy as np
from PIL import Image
from hilum.data import readers

Path("set").mkdir()
for name in ("a.png", "b.png"):
    Image.fromarray(np.full((40, 40), 100, np.uint8)).save(Path("set") / name)
Path("set/list.txt").write_text("a.png p1 sick\\nb.png p2 well\\n")
table = readers.read(Path("set"))
print(json.dumps([table.frame["image"].tolist(), table.frame["patient"].tolist(), table.frame["Pneumonia"].tolist()]))
"""


def test_the_reader_reads_a_folder_of_its_layout(run):
    assert run(READER) == [["a.png", "b.png"], ["p1", "p2"], [1.0, 0.0]]


BACKBONE = """
import json
from pathlib import Path
import onnx, torch
from hilum.engines import load_engine
from hilum.engines.torch.export import export_model
from hilum.engines.torch.models import build
from hilum.recipe import load_recipe

changes = ["model.architecture=tiny_cnn", "model.weights=none", "model.freeze=none", "data.size=32"]
recipe = load_recipe("kermany-densenet121", changes)
load_engine("torch").check(recipe)
model, initial = build(recipe, images=torch.rand(2, 32, 32))
export_model(model, initial, size=32, graph=Path("m.onnx"), weights=Path("."))
graph = onnx.load("m.onnx").graph
print(json.dumps([list(model(torch.rand(3, 32, 32)).shape), [output.name for output in graph.output]]))
"""


def test_the_backbone_is_built_and_exported(run):
    assert run(BACKBONE) == [[3, 1], ["logits", "maps", "embedding"]]


LOSS = """
import json, math
import torch
from hilum.engines.torch.losses import make_loss
from hilum.errors import RecipeError
from hilum.recipe import load_recipe

recipe = load_recipe("nih-multilabel", ["train.loss=brier", "task.findings=['Mass', 'Nodule']"])
logits = torch.tensor([[0.0, 3.0], [0.0, 5.0]], requires_grad=True)
labels = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
total, count = make_loss(recipe)(logits, labels, torch.ones(2, 2))
total.backward()
try:
    load_recipe("kermany-subtype", ["train.loss=brier"])
    refused = False
except RecipeError:
    refused = True
print(json.dumps([float(total.detach()), int(count), bool(logits.grad.isfinite().all()), refused]))
"""


def test_the_loss_is_computed_and_a_recipe_may_name_it(run):
    assert run(LOSS) == [0.5, 2, True, True]


METRIC = """
import json
import numpy as np
from hilum.engines.validation import validation_figures
from hilum.recipe import all_keys, load_recipe

recipe = load_recipe("kermany-densenet121", ["train.monitor=val_specificity"])
labels, logits = np.array([[0.0], [0.0], [1.0]]), np.array([[-1.0], [1.0], [1.0]])
monitors = next(key.values for key in all_keys() if key.name == "train.monitor")
figures = validation_figures(labels, logits, multiclass=False)
print(json.dumps([figures[recipe.train.monitor], "val_specificity" in monitors]))
"""


def test_the_figure_is_computed_in_validation_and_may_steer(run):
    assert run(METRIC) == [0.5, True]


SECTION = """
import json
from types import SimpleNamespace
from hilum.report.evaluation.page import SECTIONS

counts = {"Mass": {"positives": 3, "negatives": 7}, "Nodule": {"positives": 1, "negatives": 9}}
section = SECTIONS[-1](SimpleNamespace(metrics={"findings": counts}))
print(json.dumps([section.title, section.blocks[0].pairs]))
"""


def test_the_section_stands_in_the_report(run):
    assert run(SECTION) == ["Prevalence", [["Mass", "3 of 10"], ["Nodule", "1 of 10"]]]
