"""Options and arguments that several commands take, and what is checked of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer


class LevelName(StrEnum):
    """What one row of a score is."""

    image = "image"
    study = "study"
    patient = "patient"


class HowName(StrEnum):
    """How images are joined to a study or patient."""

    maximum = "maximum"
    mean = "mean"


class PolicyName(StrEnum):
    """What a label without a clear answer becomes."""

    ignore = "ignore"
    zeros = "zeros"
    ones = "ones"


class EngineName(StrEnum):
    """The engines that exist."""

    torch = "torch"
    keras = "keras"


SourceOption = Annotated[
    Optional[Path],  # noqa: UP045 (Typer reads the annotation at run time)
    typer.Option(
        "--data", help="A data set's folder, its CSV file, or a table (.parquet).", show_default=False
    ),
]
LayoutOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--as", help="The data set's layout, where detection is not enough.", show_default=False),
]
ImagesOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--images", help="Where the images lie, if not where the table says.", show_default=False),
]
RemapOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--remap", help="OLD=NEW: rewrites the beginning of image paths.", show_default=False),
]
ColumnOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--column",
        help="FIELD=COLUMN of a CSV file: image, patient, study, label (findings joined) or finding (one a column; "
        "may be repeated), view, sex, age, split.",
        show_default=False,
    ),
]
PositiveOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--positive",
        help="A cell of the finding columns that means present; may be repeated.",
        show_default=False,
    ),
]
SeparatorOption = Annotated[str, typer.Option("--separator", help="What joins findings in the column label.")]
UncertainOption = Annotated[
    Optional[PolicyName],  # noqa: UP045
    typer.Option(
        "--uncertain", help="Labels of -1: unknown (ignore), absent or present.", show_default=False
    ),
]
EmptyOption = Annotated[
    Optional[PolicyName],  # noqa: UP045
    typer.Option(
        "--empty", help="Labels without a value: unknown (ignore), absent or present.", show_default=False
    ),
]
TableArgument = Annotated[Path, typer.Argument(help="A table (.parquet).", show_default=False)]
TableOutput = Annotated[Path, typer.Option("-o", "--output", help="The table to write.", show_default=False)]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set", help="section.key=value changes a recipe's key; may be repeated.", show_default=False
    ),
]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="The training framework.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
ExpectOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--expect", help="Refuse any bundle whose hash does not begin with this.", show_default=False
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(help="A bundle, or a run's folder that holds one.", show_default=False)
]


def check_folder(folder: Path) -> None:
    """Refuses a file where a folder will be written, before any work or read of the test."""
    from hilum.errors import UsageError

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file; give a folder")
