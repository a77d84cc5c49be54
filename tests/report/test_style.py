"""Figures become the same bytes each time, whatever the names in them and the user's own settings."""

import re
import xml.etree.ElementTree as ET

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
