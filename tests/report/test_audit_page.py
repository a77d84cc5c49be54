"""The page of an audit: whole, self-contained, escaped, with the pictures in question."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.data.audit import audit
from hilum.data.phantom import phantom
from hilum.data.table import Source, Table, make_frame
from hilum.report.audit import page

FINDINGS = ("Mass", "Edema")
HOSTILE = "<script>alert(1).png"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an audit that finds something of almost every kind."""
    folder = tmp_path_factory.mktemp("audit")
    number = 60
    names = [HOSTILE, *[f"{row}.png" for row in range(1, number)]]
    for row, name in enumerate(names):
        Image.fromarray(phantom(row, 200, ())).save(folder / name)
    for row in (40, 41):
        shutil.copy(folder / names[row - 40], folder / names[row])
    (folder / names[5]).write_bytes(b"nothing")
    Image.fromarray(255 - phantom(7, 200, ())).save(folder / names[7])
    labels = np.zeros((number, 2))
    labels[::2, 1] = 1
    labels[41, 0] = 1
    frame = make_frame(
        image=names,
        source="<b>here",
        patient=[f"p{row // 2}" for row in range(number - 1)] + ["p0"],
        findings=FINDINGS,
        labels=labels,
        view=["AP", "PA"] * (number // 2),
        age=np.linspace(20, 115, number),
        split=["train"] * 40 + ["test"] * 20,
    )
    table = Table(frame, FINDINGS, (Source("<b>here", folder, "A citation", "Free"),), notes=("A & B",))
    found = audit(table, directory=folder / "cache")
    assert found.leaks
    page.write(folder / "out", found)
    return folder / "out"


def text_of(folder: Path) -> str:
    return (folder / "audit.html").read_text(encoding="utf-8")


def test_the_verdict_stands_on_top(written: Path) -> None:
    text = text_of(written)
    assert "Research use only" in text[: text.index("<main>")]
    assert text.index("The split leaks: 3 cases.") < text.index('class="tiles')


def test_each_check_that_found_something_has_its_section_with_what_to_do(written: Path) -> None:
    text = text_of(written)
    for name in ("patients-across-splits", "copies-across-splits", "label-clashes", "unreadable", "inverted"):
        section = text[text.index(f'<section id="{name}">') :]
        section = section[: section.index("</section>")]
        assert "To mend it:" in section
        assert f'href="#{name}"' in text
    assert '<section id="blank">' not in text


def test_pairs_stand_side_by_side_with_names_parts_and_patients(written: Path) -> None:
    text = text_of(written)
    section = text[text.index('<section id="copies-across-splits">') :]
    section = section[: section.index("</section>")]
    assert section.count('src="data:image/jpeg;base64,') == 4
    assert "1.png. Patient p0, train. No finding." in section
    assert "41.png. Patient p20, test. Mass." in section
    assert "the same file, of different patients" in section


def test_names_from_outside_are_escaped(written: Path) -> None:
    text = text_of(written)
    assert "<script" not in text
    assert "<b>here" not in text
    assert "&lt;b&gt;here" in text
    assert "A &amp; B" in text


def test_nothing_is_loaded_from_elsewhere(written: Path) -> None:
    references = re.findall(r'(?:src|href)="([^"]*)"', text_of(written))
    assert all(reference.startswith(("data:", "#")) for reference in references)


def test_the_figures_are_named_for_those_who_do_not_see_them(written: Path) -> None:
    text = text_of(written)
    assert re.search(r'aria-label="\d+ of \d+ shares differ between the parts"', text)
    assert re.search(r'aria-label="Metadata alone predict 1 of 1 findings"', text)


def test_the_json_beside_it_has_every_case(written: Path) -> None:
    content = json.loads((written / "audit.json").read_text(encoding="utf-8"))
    counts = {check["name"]: check["count"] for check in content["checks"]}
    assert counts["copies-across-splits"] == 2
    assert counts["label-clashes"] == 1
    assert counts["patients-across-splits"] == 1
    assert counts["unreadable"] == 1
