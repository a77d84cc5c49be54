"""Notices: what a reader must know of a result, as values; one file of wordings for each room that gives them."""

from collections.abc import Mapping
from typing import Any

from hilum.notices.audit import AUDIT
from hilum.notices.comparison import COMPARISON
from hilum.notices.decoding import DECODING
from hilum.notices.evaluation import EVALUATION
from hilum.notices.notice import Notice, Severity, Wording
from hilum.notices.prediction import PREDICTION
from hilum.notices.statistics import STATISTICS

CATALOGUE: Mapping[str, Wording] = {
    **AUDIT,
    **COMPARISON,
    **DECODING,
    **EVALUATION,
    **PREDICTION,
    **STATISTICS,
}
"""Code -> its wording; no code stands in two files."""

__all__ = ["CATALOGUE", "Notice", "Severity", "Wording", "notice"]


def notice(code: str, **values: Any) -> Notice:
    """Return the notice of a code with its values.

    Raises:
        KeyError: There is no such code.
    """
    return Notice(code, CATALOGUE[code].severity, values)
