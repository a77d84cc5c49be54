"""What the pages for readers say of messages, functions, data sets, keys and commands is what the code has."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import hilum
from hilum.data.readers import READERS
from hilum.recipe import all_keys

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
MESSAGES = re.findall(r"^> ``(.*)``$", PAGES["troubleshooting.md"], re.MULTILINE)
MODULES = re.findall(r"^## (hilum[\w.]*)$", "\n".join(PAGES.values()), re.MULTILINE)
SPOKEN = "\n".join(re.findall("```python\n(.*?)```", PAGES["tutorial.md"] + PAGES["python.md"], re.DOTALL))


@pytest.fixture(scope="module")
def texts():
    """Every text in the source, with … for each value in it."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.fixture
def generated(monkeypatch):
    """The module that fills pages while the site is built."""
    pytest.importorskip("sphinx", reason="the site needs Sphinx, the extra docs")
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generated_pages")


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_the_page_quotes_is_in_the_source(texts, message):
    assert any(message in text for text in texts)


def test_each_message_has_its_cause_and_the_way_out():
    page = PAGES["troubleshooting.md"]

    assert len(MESSAGES) >= 25
    assert len(MESSAGES) == page.count("\n### ") == page.count("**Cause:**") == page.count("**Way out:**")


@pytest.mark.parametrize("name", MODULES)
def test_what_the_reference_names_can_be_imported(name):
    module, _, last = name.rpartition(".")

    if last[0].isupper():
        assert hasattr(importlib.import_module(module), last)
    else:
        assert importlib.import_module(name)


def test_the_library_has_a_page_for_every_room():
    rooms = {path.parent.name for path in (ROOT / "src" / "hilum").glob("*/__init__.py")}

    assert rooms - {"cli", "api", "notices"} <= {Path(page).stem for page in PAGES if "library/" in page}


def test_what_python_pages_call_is_public():
    assert set(re.findall(r"\bhilum\.(\w+)\(", SPOKEN)) <= set(hilum.__all__)


def test_every_data_set_is_named_as_a_reader():
    named = set(re.findall(r"\| `(\w+)` \|$", PAGES["datasets.md"], re.MULTILINE))

    assert named == READERS.keys() - {"labeled", "csv"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_table_is_wider_than_four_columns(page):
    most = 5 if page == "seeds.md" else 4  # a grade stands beside each promise
    wider = rf"\|( *:?-+:? *\|){{{most + 1},}}$"
    assert [line for line in PAGES[page].splitlines() if re.match(wider, line)] == []


def test_the_page_of_keys_has_every_key(generated):
    assert re.findall(r"^`([\w.]+)`$", generated.keys(), re.MULTILINE) == [key.name for key in all_keys()]


def test_the_page_of_commands_has_every_command_with_its_options(generated):
    page = generated.commands()
    section = page.partition("## hilum bundle verify\n")[2].partition("\n## ")[0]

    assert len(re.findall("^## hilum ", page, re.MULTILINE)) == 21
    assert "hilum bundle verify [OPTIONS] {model}" in section
    assert r"`--expect HASH`" in section


def test_a_page_lists_what_it_links_to_in_the_order_of_the_site(generated):
    text = "- [Data](data.md): a\n- [Notebook](../n/one.ipynb): b\n- see [Training](training.md)\n\n<!-- contents -->"
    source = [text]

    generated.fill(None, "docs/guides", source)

    assert source[0].endswith("```{toctree}\n:hidden:\n\nData <data.md>\nNotebook <../n/one.ipynb>\n```")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_is_listed(page):
    lists = re.findall(r"^- \[[^\]]+\]\(([\w/.]+)\)", "\n".join(PAGES.values()), re.MULTILINE)

    assert page in {*lists, "index.md"}
