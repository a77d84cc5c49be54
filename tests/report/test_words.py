"""Numbers in words: fixed digits, true minus signs, honest ends."""

import pytest
from hypothesis import given, strategies as st

from hilum.report import formatting
from hilum.report.evaluation import tables
from hilum.report.rendering import escape_markdown


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"value": 0.97212, "low": 0.959, "high": 0.983}, "0.972 (0.959–0.983)"),
        ({"value": -0.12, "low": -0.5, "high": 0.1}, "−0.120 (−0.500 to 0.100)"),
        ({"value": 0.9, "low": None, "high": None, "reason": "no interval: 3 patients"}, "0.900"),
        ({"value": None, "low": None, "high": None, "reason": "not estimable: 0 positives"}, "not estimable"),
        (None, "not estimable"),
    ],
)
def test_estimate(entry: formatting.Entry | None, text: str) -> None:
    assert formatting.estimate(entry) == text


@given(st.text(alphabet="ab _-/", min_size=1), st.integers(1, 20))
def test_a_wrapped_name_is_whole_and_fits(name: str, letters: int) -> None:
    lines = formatting.wrapped(name, letters)

    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(len(line) <= letters for line in lines)


def test_a_name_breaks_behind_its_words() -> None:
    assert formatting.wrapped("Pleural_Thickening", 12) == ["Pleural_", "Thickening"]
    assert formatting.wrapped("A finding of two words", 9) == ["A finding", "of two", "words"]


def test_minus_zero_is_zero() -> None:
    assert formatting.number(-0.0001) == "0.000"


def test_reason_comes_without_its_prefix() -> None:
    assert formatting.reason({"value": None, "reason": "not estimable: 0 positives"}) == "0 positives"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (1, "1.00"), (0.0001, "< 0.001"), (0.9999, "> 0.99"), (0.0432, "0.043"), (0.5, "0.50")],
)
def test_probability_is_never_rounded_to_certainty(value: float, text: str) -> None:
    assert formatting.probability(value) == text


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "\x7fx"])
def test_formulas_are_quoted(text: str) -> None:
    assert tables.spreadsheet_safe(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "Pneumonia", "'=1", "1-2"])
def test_harmless_text_is_left_alone(text: str) -> None:
    assert tables.spreadsheet_safe(text) == text


def test_markdown_is_escaped() -> None:
    assert escape_markdown("a|b <i>\n[x](y)") == r"a\|b \<i\> \[x\](y)"


def test_long_names_keep_both_ends() -> None:
    assert formatting.ends("short", 8) == "short"
    assert formatting.ends("a-long-name-03", 9) == "a-lo…e-03"
    assert len(formatting.ends("x" * 50, 24)) == 24
