"""What a reader must know of a result, as a value with a code; the wording is looked up where it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""`error`: there is no result, or none to be trusted. `warning`: it may mislead. `note`: how it came about."""


@dataclass(frozen=True)
class Wording:
    """How notices of one code read.

    Attributes:
        severity: Of every notice of this code.
        text: A template of `str.format` over the notice's values, or a function of them.
        meaning: When it is given and what to do, in a sentence, for the table of all codes in the documentation.
    """

    severity: Severity
    text: str | Callable[..., str]
    meaning: str


@dataclass(frozen=True)
class Notice:
    """Something that a reader must know of a result.

    Attributes:
        code: What it is, in words joined by hyphens, for example `view-not-in-training`; see `docs/notices.md`.
        severity: How much it weighs.
        values: What the wording fills in, of the types that JSON has.
    """

    code: str
    severity: Severity
    values: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The notice in English."""
        from hilum.notices import CATALOGUE

        text = CATALOGUE[self.code].text
        return text.format(**self.values) if isinstance(text, str) else text(**self.values)

    def __str__(self) -> str:
        """The notice in English."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return code, severity, text and values, of the types that JSON has."""
        return {"code": self.code, "severity": self.severity, "text": self.text, "values": dict(self.values)}
