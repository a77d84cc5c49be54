"""One meaning a word: what names and docstrings in `src` keep to."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import hilum

SOURCE = Path(hilum.__file__).parent
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}
SHORT = {("numpy", "np"), ("pandas", "pd")}
"""What everybody imports under another name."""

NOT_VERBS = re.compile(r".*('s|ss)")
NOUNS = re.compile(
    "Ages|Bones|Cases|Choices|Columns|Counts|Decisions|Findings|Heights|Images|Inches|Labels|"
    "Layers|Logits|Maps|Notes|Numbers|Pairs|Patients|Points|Positives|Predictions|Probabilities|"
    "Rows|Sums|Temperatures|Threads|Trials|Values|Vectors|Views|Words|Workers|Years|As|This|Is|"
    "Has|Times|Names|Classes|Thickness|Kinds|Weights"
)
"""First words of docstrings that say what is returned."""


def public(node):
    return not node.name.startswith("_")


def definitions(tree):
    """The public classes and functions of a module, and the public methods of its public classes."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if isinstance(node, kinds) and public(node):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (member for member in node.body if isinstance(member, kinds) and public(member))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and public(node):
                places[node.name].append(path)

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_nothing_is_imported_under_another_name():
    renamed = [
        f"{path}:{node.lineno}: {alias.name} as {alias.asname}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname and not (isinstance(node, ast.Import) and (alias.name, alias.asname) in SHORT)
    ]

    assert renamed == []


def test_all_that_is_public_has_a_docstring():
    lacking = [path for path, tree in TREES.items() if not ast.get_docstring(tree)]
    lacking += [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in TREES.items()
        for node in definitions(tree)
        if not ast.get_docstring(node)
    ]

    assert lacking == []


def test_docstrings_are_in_the_imperative():
    described = []
    for path, tree in TREES.items():
        for node in functions(tree):
            first = (ast.get_docstring(node) or " ").split(" ")[0].strip(".,:;\n")
            if first == "Told" or (
                re.fullmatch("[A-Z][a-z]+s", first)
                and not NOUNS.fullmatch(first)
                and not NOT_VERBS.fullmatch(first)
            ):
                described.append(f"{path}:{node.lineno}: {node.name}: {first}")

    assert described == []
