import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.recipe import all_keys, load_recipe

ROOT = Path(__file__).resolve().parents[1]
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_command_prints_every_key():
    printed = CliRunner().invoke(app, ["recipes", "--keys"]).stdout

    assert re.findall(r"^\| `([\w.]+)` \|", printed, re.MULTILINE) == [key.name for key in all_keys()]


def test_every_key_is_told_of():
    told = {key.name for key in all_keys()}
    values = load_recipe("demo").model_dump(mode="json")

    assert told == {
        f"{name}.{key}" for name, part in values.items() if isinstance(part, dict) for key in part
    }


@pytest.mark.parametrize(
    "named", sorted(set(re.findall(r"`((?:data|task|split|balance|augment|model|train)\.\w+)", TRAINING)))
)
def test_a_key_that_the_documentation_names_exists(named):
    assert named in {key.name for key in all_keys()}
