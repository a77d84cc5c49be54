"""docs/seeds.md names nothing that is not there: tests, files, recipe keys, commands; and it counts without a gap."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from hilum.cli import app
from hilum.recipe import all_keys

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
TESTS = [code for code in CODE if "::" in code]
FILES = [code for code in CODE if re.match(r"(src|docs|notebooks|benchmarks|tests|\.github)/[^:]+$", code)]
SECTIONS = "|".join(sorted({key.name.partition(".")[0] for key in all_keys()}))
KEYS = [code for code in CODE if re.match(rf"({SECTIONS})\.\w+( = .+)?$", code)]
COMMANDS = [code for code in CODE if code.startswith("hilum ")]
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.splitlines() if re.match(r"\| 00\d\.", line)]
PROMISES = [row[0] for row in ROWS if len(row) == 4]
SHOWN = {row[0]: row[1] for row in ROWS if len(row) == 2}
DOCUMENTS = ("000", "001", "002", "003", "004")


@pytest.mark.parametrize("named", TESTS)
def test_a_test_that_the_page_names_exists(named):
    path, _, function = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("named", FILES)
def test_a_file_that_the_page_names_exists(named):
    assert (ROOT / named).exists()


@pytest.mark.parametrize("named", KEYS)
def test_a_key_and_its_value_are_a_recipes(named):
    key, _, value = named.partition(" = ")
    known = {each.name: each for each in all_keys()}

    assert key in known
    choices = re.findall("`([^`]+)`", known[key].values)
    if value.startswith('"') and choices:
        assert value.strip('"') in choices


@pytest.mark.parametrize("named", COMMANDS)
def test_a_command_and_its_options_exist(named):
    command, words = typer.main.get_command(app), shlex.split(named)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}

    assert not hasattr(command, "commands"), "names a command, not a group"
    assert {word for word in words if word.startswith("-")} <= options


def test_promises_are_numbered_without_a_gap():
    for document in DOCUMENTS:
        numbers = [int(number[4:]) for number in PROMISES if number.startswith(document)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_each_promise_has_a_test_or_says_that_it_has_none():
    assert list(SHOWN) == PROMISES
    assert [number for number, shown in SHOWN.items() if "::" not in shown and shown != "no test"] == []


def test_a_row_that_refers_to_another_finds_it():
    assert set(re.findall(r"\b00\d\.\d+", PAGE)) <= set(PROMISES)
