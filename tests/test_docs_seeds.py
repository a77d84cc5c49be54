"""docs/seeds.md names nothing that is not there (tests, files, keys, commands, figures), and counts its grades."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from hilum.cli import app
from hilum.recipe import all_keys, load_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
TESTS = [code for code in CODE if "::" in code]
FILES = [code for code in CODE if re.match(r"(src|docs|notebooks|benchmarks|tests|\.github)/[^:]+$", code)]
SECTIONS = "|".join(sorted({key.name.partition(".")[0] for key in all_keys()}))
KEYS = [code for code in CODE if re.match(rf"({SECTIONS})\.\w+( = .+)?$", code)]
COMMANDS = [code for code in CODE if code.startswith("hilum ")]
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.splitlines() if re.match(r"\| 00\d\.", line)]
GRADES = ("measured", "tested", "recipe only", "not done")
GRADE = {row[0]: row[2] for row in ROWS if len(row) == 5}
PROMISES = list(GRADE)
SHOWN = {row[0]: row[1] for row in ROWS if len(row) == 2}
DIFFERENCES = [
    (name, re.findall(r"\+(\w+\.\w+=[^` ]+)", line))
    for line in PAGE.partition("## Where the recipes differ")[2].splitlines()
    for name in re.findall("`([^`]+)`", line.partition("|")[2].partition("|")[0])
    if name in shipped_recipes()
]
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


def section(page, anchor):
    """The text of a page below the heading that an anchor leads to."""
    for part in re.split(r"(?m)^#+ ", page):
        heading, _, text = part.partition("\n")
        if re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") == anchor:
            return text
    return ""


def test_each_promise_has_one_of_four_grades_and_says_what_shows_it():
    assert set(GRADE.values()) == set(GRADES)
    assert list(SHOWN) == PROMISES


def test_the_grades_are_counted():
    counted = {grade: list(GRADE.values()).count(grade) for grade in GRADES}
    told = re.findall(rf"(?m)^\| ({'|'.join(GRADES)}) \| (\d+) \|", PAGE)

    assert [(grade, str(number)) for grade, number in counted.items()] == told
    assert f"All {len(PROMISES)} are counted." in PAGE


@pytest.mark.parametrize("number", [number for number, grade in GRADE.items() if grade == "measured"])
def test_a_measured_promise_leads_to_its_figure(number):
    figures = re.findall(r"\[([^\]]+)\]\(([^)#]+)#([^)]+)\)", SHOWN[number])

    assert figures
    for figure, path, anchor in figures:
        page = (ROOT / "docs" / path).resolve()
        assert page in (ROOT / "README.md", ROOT / "docs" / "results.md")
        assert figure in section(page.read_text(encoding="utf-8"), anchor)


def test_a_tested_promise_names_its_test():
    assert [
        number for number, grade in GRADE.items() if grade == "tested" and "::" not in SHOWN[number]
    ] == []


def test_what_a_recipe_says_is_not_taken_for_a_test():
    assert "test_a_recipe_says_what_the_published_notebook_trained" not in PAGE


def test_what_is_not_done_is_listed_at_the_top():
    listed = PAGE.partition("## Not yet\n\n")[2].partition("\n\n")[0]

    not_done = {number for number, grade in GRADE.items() if grade == "not done"}
    assert set(re.findall(r"00\d\.\d+", listed)) == not_done


def test_every_recipe_says_where_it_differs_from_its_document():
    assert {name for name, _ in DIFFERENCES} == set(shipped_recipes())


@pytest.mark.parametrize(("name", "changes"), [each for each in DIFFERENCES if each[1]])
def test_the_way_back_to_a_document_is_one_that_its_recipe_takes(name, changes):
    before, after = load_recipe(name).flat(), load_recipe(name, changes).flat()

    assert {key for key in after if after[key] != before[key]} == {
        change.partition("=")[0] for change in changes
    }


def test_a_row_that_refers_to_another_finds_it():
    assert set(re.findall(r"\b00\d\.\d+", PAGE)) <= set(PROMISES)
