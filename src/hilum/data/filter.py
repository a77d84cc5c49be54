"""A table and an expression -> the rows for which it is true."""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.data.table import COLUMNS, SEXES, SPLITS, VIEWS, Table
from hilum.errors import DataError, UsageError, nearest
from hilum.recipe.findings import NO_FINDING, named

EXAMPLE = "view == 'PA' and age >= 18 and not `Pleural Thickening`"


@dataclass(frozen=True)
class Filtered:
    """What a filter leaves.

    Attributes:
        table: The rows for which the expression is true.
        unknown: How many of the rows left out it can neither be called true nor false for.
    """

    table: Table
    unknown: int


def filter_rows(table: Table, expression: str) -> Filtered:
    """Keep the rows for which an expression is true.

    An expression compares columns and findings with values: `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, joined
    by `and`, `or`, `not` and parentheses. A finding alone means that it is present, `not` before it that it is known
    to be absent; a name with spaces stands in backticks or with underscores. Nothing else is understood, and nothing
    is ever executed.

    What is not known (an empty text, an age or finding of NaN, a width of 0) makes a comparison unknown, as in
    Kleene's logic of three values: `A and B` is false where either is false, `A or B` true where either is true, and
    else unknown where either is. To ask for unknown text, compare with `''`.

    Args:
        table: Any table.
        expression: For example `"view == 'PA' and age >= 18"`.

    Raises:
        UsageError: The expression is not understood, or names no column; the message tells the nearest.
        DataError: No row is left.
    """
    tree, quoted = _parse(expression)
    try:
        value = _Evaluation(table, expression, quoted).truth(tree)
    except (RecursionError, OverflowError):
        raise UsageError(
            f"the expression {expression[:40]!r} ... is nested too deep or holds a number too large"
        ) from None
    keep = value == 1
    unknown = int(np.isnan(value).sum())
    if not keep.any():
        raise DataError(
            f"no row of {len(table):,} is left by {expression!r} ({unknown:,} are unknown to it); "
            "`hilum data index` prints what a table holds"
        )
    kept = f"{int(keep.sum()):,} of {len(table):,} rows stay"
    note = f"filtered by {expression!r}: {kept}, {unknown:,} are unknown and left out"
    chosen = table.select(keep)
    return Filtered(replace(chosen, notes=(*table.notes, note)), unknown)


_TEXT = ("image", "source", "patient", "study", "view", "sex", "split")
_NUMBERS = ("age", "width", "height")
_VALUES = {"view": VIEWS, "sex": SEXES, "split": SPLITS}
_BACKTICKS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`([^`]*)`")
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MAX_LENGTH = 10_000
"""Characters; Python's parser needs much memory for texts that are longer than anybody writes."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of a comparison.

    Attributes:
        values: (rows,) of a column, or a literal: a number, a text or a tuple of them.
        unknown: bool (rows,); None for a literal.
        name: Of the column; empty for a literal.
        text: Whether it is text.
    """

    values: Any
    unknown: NDArray[np.bool_] | None
    name: str
    text: bool


def _parse(expression: str) -> tuple[ast.expr, dict[str, str]]:
    """Return the tree, and the names that stood in backticks by the identifiers put in their place."""
    quoted: dict[str, str] = {}

    def put(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]  # a text, whatever is in it
        name = f"_quoted_{len(quoted)}"
        quoted[name] = match[1]
        return name

    if len(expression) > _MAX_LENGTH:
        raise UsageError(
            f"the expression has {len(expression):,} characters; at most {_MAX_LENGTH:,} are read"
        )
    try:
        tree = ast.parse(_BACKTICKS.sub(put, expression).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too deep"
        raise UsageError(
            f"the expression {expression!r} is not understood ({reason}); for example: {EXAMPLE}"
        ) from None
    return tree, quoted


class _Evaluation:
    """Values of the parts of one expression over one table."""

    def __init__(self, table: Table, expression: str, quoted: dict[str, str]) -> None:
        self._table = table
        self._expression = expression
        self._quoted = quoted

    def truth(self, node: ast.expr) -> NDArray[np.float64]:
        """Return 1 true, 0 false, NaN unknown, float64 (rows,)."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                values = np.stack([self.truth(part) for part in parts])
                return _all(values) if isinstance(op, ast.And) else 1 - _all(1 - values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return 1 - self.truth(operand)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                sides = [self._side(part) for part in (left, *rights)]
                pairs = zip(sides, ops, sides[1:], strict=False)
                return _all(np.stack([self._compared(*pair) for pair in pairs]))
            case ast.Name():
                side = self._side(node)
                if side.name in COLUMNS:
                    raise self._refusal(
                        f"column {side.name!r} is neither true nor false; compare it with a value"
                    )
                return np.asarray(side.values, float)
        raise self._refusal(f"{self._shown(node)} is neither a comparison nor a finding")

    def _side(self, node: ast.expr) -> _Side:
        match node:
            case ast.Name(id=identifier):
                return self._column(self._quoted.get(identifier, identifier))
            case ast.Constant(value=value) if isinstance(value, str):
                return _Side(value, None, "", text=True)
            case ast.Constant(value=bool() | int() | float() as number):
                return _Side(float(number), None, "", text=False)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return _Side(-float(number), None, "", text=False)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                sides = [self._side(part) for part in parts]
                kinds = {side.text for side in sides}
                if len(kinds) == 1 and all(
                    side.unknown is None and not isinstance(side.values, tuple) for side in sides
                ):
                    return _Side(tuple(side.values for side in sides), None, "", text=kinds.pop())
                raise self._refusal(f"{self._shown(node)} is not a list of texts or of numbers")
        raise self._refusal(f"{self._shown(node)} is not understood")

    def _column(self, name: str) -> _Side:
        frame = self._table.frame
        if name in _TEXT:
            values = frame[name].to_numpy(object)
            return _Side(values, np.asarray(values == "", bool), name, text=True)
        if name in _NUMBERS:
            values = frame[name].to_numpy(float)
            return _Side(values, np.isnan(values) if name == "age" else values == 0, name, text=False)
        finding = named(name)
        if finding not in (*self._table.findings, NO_FINDING):
            if any(name in allowed for allowed in _VALUES.values()) or (frame[list(_TEXT)] == name).any(
                axis=None
            ):
                raise self._refusal(f"{name} is text, which stands in quotes: '{name}'")
            known = nearest(name.replace("_", " "), (*COLUMNS, *self._table.findings))
            raise self._refusal(f"there is no column or finding {name!r}; there are: {known}")
        values = self._table.labels([finding])[:, 0].astype(float)
        return _Side(values, np.isnan(values), finding, text=False)

    def _compared(self, left: _Side, op: ast.cmpop, right: _Side) -> NDArray[np.float64]:
        if left.unknown is None and right.unknown is None:
            raise self._refusal("a comparison has no column in it")
        if isinstance(left.values, tuple) or isinstance(right.values, tuple) != isinstance(
            op, ast.In | ast.NotIn
        ):
            raise self._refusal("a list stands only after 'in' or 'not in', such as view in ('PA', 'AP')")
        if left.text != right.text:
            which = left.name or right.name
            raise self._refusal(
                f"{which!r} is {'text' if (left if left.name else right).text else 'a number'}; "
                "compare it with a value of its own kind"
            )
        if left.text and isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            raise self._refusal(f"text such as {left.name or right.name!r} has no order; use ==, != or in")
        self._check_values(left, right)
        unknown = np.zeros(len(self._table), dtype=bool)
        for side, other in ((left, right), (right, left)):
            if side.unknown is not None and not _asks_for_empty(other):
                unknown |= side.unknown
        if isinstance(op, ast.In | ast.NotIn):
            inside = np.isin(left.values, np.array(right.values, dtype=object if left.text else float))
            result = inside if isinstance(op, ast.In) else ~inside
        else:
            compare = _COMPARISONS.get(type(op))
            if compare is None:
                raise self._refusal("'is' compares no values; use == or !=")
            result = np.asarray(compare(left.values, right.values), bool)
        return np.where(unknown, np.nan, result.astype(float))

    def _check_values(self, left: _Side, right: _Side) -> None:
        """Refuse values that a column can never have, since a slip would empty or fill the table."""
        for side, other in ((left, right), (right, left)):
            allowed: tuple[Any, ...] = _VALUES.get(side.name, ())
            if side.name and side.name not in COLUMNS:
                allowed = (0.0, 1.0)
            asked = other.values if isinstance(other.values, tuple) else (other.values,)
            if not allowed or other.unknown is not None:
                continue
            for value in asked:
                if value not in allowed and value != "":
                    known = (
                        nearest(value, allowed)
                        if isinstance(value, str)
                        else ", ".join(f"{v:g}" for v in allowed)
                    )
                    raise self._refusal(f"{side.name!r} is never {value!r}; it is one of: {known}")

    def _shown(self, node: ast.expr) -> str:
        text = ast.unparse(node)
        for identifier, name in self._quoted.items():
            text = text.replace(identifier, f"`{name}`")
        return repr(text)

    def _refusal(self, problem: str) -> UsageError:
        return UsageError(f"in {self._expression!r}: {problem}")


def _asks_for_empty(side: _Side) -> bool:
    return side.unknown is None and (
        side.values == "" or (isinstance(side.values, tuple) and "" in side.values)
    )


def _all(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kleene's and over the first axis: false where any is false, else unknown where any is, else true."""
    return np.where((values == 0).any(axis=0), 0.0, np.where(np.isnan(values).any(axis=0), np.nan, 1.0))
