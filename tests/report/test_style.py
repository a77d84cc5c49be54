"""Figures become the same bytes each time, whatever the names in them and the user's own settings."""

import re
import xml.etree.ElementTree as ET
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import pytest

from hilum.report.drawing import curves, style


def draw(name: str = "Pneumonia") -> str:
    counts = np.array([[3, 1], [2, 4]])
    drawing = curves.confusion([curves.ConfusionPanel("", "", (name, "other"), counts)], title=name)
    return style.svg(drawing, "confusion")


def test_svg_is_the_same_each_time() -> None:
    assert draw() == draw()


def test_svg_does_not_follow_the_users_settings() -> None:
    expected = draw()

    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw() == expected


def test_svg_is_well_formed_and_its_colours_follow_the_page() -> None:
    text = draw()

    assert ET.fromstring(text).tag == "svg"
    assert "var(--figure-ink, #1b1f24)" in text
    assert "<metadata" not in text
    assert "http" not in text


def test_svg_ids_carry_the_figures_name() -> None:
    text = draw()

    assert all(name.startswith("confusion-") for name in re.findall(r'\bid="([^"]*)"', text))
    assert all(name.startswith("confusion-") for name in re.findall(r"url\(#([^)]*)\)", text))


@pytest.mark.parametrize("name", ["<b>&amp;", "$x_1$ $", "]]>", "--><script>", "肺炎", "a\nb\x00"])
def test_any_name_can_be_drawn(name: str) -> None:
    text = draw(name)
    counts = np.array([[3, 1], [2, 4]])
    drawing = curves.confusion([curves.ConfusionPanel("", "", (name, "other"), counts)], title=name)

    words = "".join(ET.fromstring(text).itertext())
    assert name.replace("\n", " ").replace("\x00", " ") in words
    assert style.png(drawing, dpi=50).startswith(b"\x89PNG")


def css_within(width: str) -> str:
    """The declarations of the stylesheet that hold on every screen, and on those at most as wide."""
    sheet = (files("hilum.report") / "templates" / "report.css").read_text(encoding="utf-8")
    always = sheet[: sheet.index("@media (max-width")]
    narrow = sheet[sheet.index(f"@media (max-width: {width})") :]
    return always + narrow[: narrow.index("\n}")]


def test_on_a_phone_tables_scroll_and_pictures_shrink() -> None:
    css = css_within("38rem")

    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", css)
    assert re.search(r"\.cell img \{ width: 100%; height: auto", css)
    assert re.search(r"\.case img \{ width: 100%; height: auto", css)
    assert re.search(r"\.drawing svg \{[^}]*max-width: 100%; height: auto", css)


def test_a_drawing_too_wide_for_a_phone_scrolls_uncut_and_says_so() -> None:
    css = css_within("38rem")

    assert re.search(r"\.wide \.drawing \{ overflow-x: auto", css)
    assert re.search(r"\.wide \.drawing::before \{ content: \"Scroll sideways", css)
    assert re.search(r"\.wide \.drawing svg \{ width: 36rem; max-width: none; margin-left: 0", css)
