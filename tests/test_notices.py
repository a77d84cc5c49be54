import re
from pathlib import Path

import pytest

from hilum import notices
from hilum.notices import CATALOGUE, notice

SOURCE = Path(notices.__file__).parents[1]
CODE = re.compile(r'\bnotice\(\s*"([^"]+)"')


def test_each_code_is_given_somewhere_and_no_other_is():
    given = {code for path in SOURCE.rglob("*.py") for code in CODE.findall(path.read_text(encoding="utf-8"))}

    assert given == set(CATALOGUE)


def test_a_notice_reads_as_its_wording_and_carries_code_and_values():
    given = notice("few-pixels", width=28, height=30)

    assert str(given) == "only 28 x 30 pixels: small findings are lost"
    assert given.to_dict() == {
        "code": "few-pixels",
        "severity": "warning",
        "text": str(given),
        "values": {"width": 28, "height": 30},
    }


def test_an_unknown_code_is_refused():
    with pytest.raises(KeyError):
        notice("no-such-code")


def test_codes_are_words_joined_by_hyphens():
    assert [code for code in CATALOGUE if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code)] == []


def test_the_documentation_lists_every_code():
    page = (SOURCE.parents[1] / "docs" / "notices.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(code, kind.severity, kind.meaning) for code, kind in sorted(CATALOGUE.items())]
