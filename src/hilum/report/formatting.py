"""Entries of metrics.json -> the words that figures, tables and the model card print."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hilum.stats import Estimate

Entry = Mapping[str, Any]
"""`{"value": ..., "low": ..., "high": ...}`; a value or an end that is None has its `reason` beside it."""

NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "sensitivity": "Sensitivity (recall)",
    "specificity": "Specificity",
    "ppv": "PPV (precision)",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at the stated prevalence",
    "npv_at_prevalence": "NPV at the stated prevalence",
    "f1": "F1",
    "mcc": "MCC",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "brier": "Brier score",
    "ece": "ECE",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept",
}
"""Every metric in reading order, with its name in the field."""
DISCRIMINATION = ("auroc", "average_precision")
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
DECISIONS = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "ppv_at_prevalence",
    "npv_at_prevalence",
    "f1",
    "mcc",
    "balanced_accuracy",
    "accuracy",
)
NOT_ESTIMABLE = "not estimable"


def is_known(entry: Entry | None) -> bool:
    """Whether there is a value."""
    return entry is not None and entry.get("value") is not None


def number(value: float, *, digits: int = 3) -> str:
    """Write a number with fixed digits and a true minus; minus zero is zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def value(entry: Entry | None) -> str:
    """Write the estimate alone."""
    return number(float(entry["value"])) if entry is not None and is_known(entry) else NOT_ESTIMABLE


def interval(entry: Entry | None) -> str:
    """Write the interval alone, `0.959–0.983`, with `to` where an end is negative; empty without one."""
    if entry is None or entry.get("low") is None or entry.get("high") is None:
        return ""
    low, high = float(entry["low"]), float(entry["high"])
    return f"{number(low)}{' to ' if low < 0 else '–'}{number(high)}"


def estimate(entry: Entry | None) -> str:
    """Write an estimate with its interval, `0.972 (0.959–0.983)`."""
    ends = interval(entry)
    return f"{value(entry)} ({ends})" if ends else value(entry)


def reason(entry: Entry | None) -> str:
    """Say why a value or its interval is missing; empty where both are there."""
    if entry is None:
        return "not computed"
    return str(entry.get("reason") or "").removeprefix(f"{NOT_ESTIMABLE}: ").removeprefix("no interval: ")


def probability(value: float) -> str:
    """Write a probability with two digits, three below 0.1; 0 and 1 only where they are exact."""
    if 0 < value < 0.0005:
        return "< 0.001"
    if 0.995 <= value < 1:
        return "> 0.99"
    return f"{value:.3f}" if 0 < value < 0.0995 else f"{value:.2f}"


def per_cent(part: float, whole: float) -> str:
    """Write a share as `3.6 %`, that of nothing as a dash."""
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "–"


def p_text(value: float | None) -> str:
    """Write a p value: two digits that tell, `< 0.001` below that; a dash where there is no test."""
    if value is None:
        return "–"
    return (
        "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}" if value < 0.0995 else f"{value:.2f}"
    )


def small(value: float) -> str:
    """Write a number with two digits that tell, `0.05`, `9.5`, `12`."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def setting(value: Any) -> str:
    """Write the value of a recipe's key: `(none)` for an empty list."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def shorten(name: str, length: int) -> str:
    """Cut the beginning off a long file name, since its end tells most."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def cut(name: str, length: int) -> str:
    """Cut the end off a long name."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def ends(name: str, length: int) -> str:
    """Cut the middle out of a long name, where names begin alike and differ at the end."""
    tail = (length - 1) // 2
    return name if len(name) <= length else f"{name[: length - 1 - tail]}…{name[-tail:]}"


def wrapped(name: str, letters: int) -> list[str]:
    """Break a name into lines of at most `letters`, behind a space, underscore, hyphen or slash where it can be."""
    lines = [""]
    for word in re.findall(r"[^\s_/-]*[\s_/-]*", name):
        for start in range(0, len(word), letters):
            piece = word[start : start + letters]
            if len((lines[-1] + piece).rstrip()) > letters:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]


def part(split: str) -> str:
    """Name what was evaluated: `test split`, `all images`, `out-of-fold predictions`."""
    return {"all": "all images", "out-of-fold": "out-of-fold predictions"}.get(split, f"{split} split")


def truth(label: float) -> str:
    """Name a label: `present`, `absent` or `unknown`."""
    return "unknown" if math.isnan(label) else "present" if label >= 0.5 else "absent"


def alone(estimate: Estimate) -> str:
    """Write an AUROC with its interval to two digits, `0.62 (0.58–0.66)`; a dash where there is none."""
    if estimate.value is None:
        return "–"
    value = number(estimate.value, digits=2)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({number(estimate.low, digits=2)}–{number(estimate.high, digits=2)})"


def listed(names: Sequence[str]) -> str:
    """Join names, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
