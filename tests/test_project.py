"""The files beside the code: what is installed, the licence, and how to take part."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = "tensorflow keras pandas numpy scikit-learn matplotlib pillow opencv-python-headless"


def names(requirements):
    return {re.split(r"[\[>=<;]", each)[0] for each in requirements}


@pytest.mark.parametrize("package", NEEDED.split())
def test_what_published_notebooks_install_is_installed_and_pinned(package):
    declared = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["keras"])
    pinned = re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"))

    assert package in declared
    assert package in pinned


def test_the_licence_is_mit_in_the_file_and_in_the_package():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert text.startswith("MIT License")
    assert PROJECT["license"] == "MIT"


def test_contributing_tells_each_step_from_a_clone_to_a_pull_request():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = [
        "issue first",
        "Fork",
        "git clone",
        "git checkout -b",
        "make check",
        "git commit",
        "git push",
        "pull request",
    ]

    places = [text.find(step) for step in steps]

    assert places == sorted(places)
    assert places[0] >= 0


def test_the_form_for_a_bug_asks_for_description_steps_and_environment():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.md").read_text(encoding="utf-8")

    assert all(
        part in text for part in ("**What happened**", "**Steps**", "**What I expected**", "**Versions**")
    )
