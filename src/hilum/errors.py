"""Every failure that a user can meet, as one tree; the command line turns each into a line and an exit status::

    HilumError                        exit status 1
    ├── UsageError (ValueError)       exit status 2: an argument, a path or a setting is wrong
    │   ├── RecipeError               a key or value of a recipe
    │   └── MissingExtraError         an optional package is not installed; names the extra
    ├── DataError                     the data failed a check
    │   ├── ImageError                one file cannot become a radiograph; its message is the reason
    │   └── LayoutError               a folder or file is not of the kind that was asked for. Exit status 2
    ├── BundleError                   a bundle is damaged, incomplete or of an unknown format
    └── TrainingError                 training cannot start or go on
        ├── NoRoomError               a disk is full; what was done is kept
        ├── NotANumberError           the loss is not a number; it names the step and holds the batch's rows
        └── StoppedError                asked to stop from outside; the state is saved. Exit status 143

What tells 1 from 2: with 2 the command could not begin as it was given, since something named on the command line or in
the recipe is not there, is misspelt, is of another kind, or is there already; another command line mends it. With 1 it
began, and what it read or made failed: a damaged file, a leak, too few patients, an image that cannot be read.

A message says what arrived, what was expected and how to mend it, in one or two lines.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class HilumError(Exception):
    """Anything that Hilum refuses or cannot do, in words for the person who asked."""

    exit_status = 1


class UsageError(HilumError, ValueError):
    """An argument, a path or a setting is wrong."""

    exit_status = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong value or an impossible combination."""


class MissingExtraError(UsageError):
    """An optional package is not installed."""


class DataError(HilumError):
    """The data failed a check."""


class ImageError(DataError):
    """One file cannot become a radiograph; the message is the reason, without the file's name."""


class LayoutError(DataError):
    """A folder or file is not of the kind that was asked for: of no known layout or of several, or without a column."""

    exit_status = 2


class BundleError(HilumError):
    """A bundle is damaged, incomplete or of an unknown format."""


class TrainingError(HilumError):
    """Training cannot start or cannot go on."""


class NoRoomError(TrainingError):
    """The disk is full or cannot be written to, whatever is trained."""


class NotANumberError(TrainingError):
    """The loss is not a number.

    Attributes:
        rows: The table's rows of the batch at which it was met.
    """

    def __init__(self, message: str, rows: Iterable[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class StoppedError(TrainingError):
    """Asked to stop from outside (SIGTERM); the state is saved."""

    exit_status = 143


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known names for an error message, the nearest to `name` first.

    Args:
        name: What arrived.
        known: What would have been right.

    Returns:
        For example `"pneumonia (did you mean it?), effusion, edema"`.
    """
    names = list(known)
    close = _close(name, names)
    ordered = close + sorted(candidate for candidate in names if candidate not in close)
    if close:
        ordered[0] = f"{ordered[0]} (did you mean it?)"
    return ", ".join(ordered)


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, empty where none is near."""
    return next(iter(_close(name, list(known))), "")


def plain(kind: str, message: str) -> str:
    """Put what a check of pydantic's says into words for people who do not program.

    Args:
        kind: The type of its error, for example `"int_parsing"`.
        message: Its message.

    Returns:
        For example `"should be a whole number"`.
    """
    for beginning, words in _WORDS.items():
        if kind.startswith(beginning):
            return f"should be {words}"
    return message.removeprefix("Value error, ").removeprefix("Input ")


_WORDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a number",
    "bool_": "true or false",
    "string_type": "text",
    "string_pattern": "a name of letters, digits, '.', '_' and '-'",
    "tuple_type": "a list",
    "model_": "a section with keys of its own",
    "path_type": "a path",
}
"""Beginning of the type of an error of pydantic's -> what should have arrived."""


def _close(name: str, names: list[str]) -> list[str]:
    lowered = {candidate.lower(): candidate for candidate in names}
    return [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package; where it is missing, name the extra that installs it.

    Args:
        module: The module to import, for example `"torch"`.
        extra: The extra of this project that installs it, for example `"torch"`.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module} is not installed; the extra {extra!r} brings it: pip install '.[{extra}]' in Hilum's checkout"
        ) from None
