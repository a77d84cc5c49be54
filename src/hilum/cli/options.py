"""Options and arguments that several commands take, and what is checked of them."""

from collections.abc import Sequence
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
    typer.Option(
        "--as",
        metavar="LAYOUT",
        help="The data set's layout, where detection is not enough: kermany, nih, chexpert, rsna, vinbigdata, "
        "medmnist, labeled, folders or csv.",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--images", help="The folder of the images, if they are not where the table says.", show_default=False
    ),
]
RemapOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--remap",
        metavar="OLD=NEW",
        help="Image paths that begin with OLD begin with NEW instead.",
        show_default=False,
    ),
]
ColumnOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="Which column of a CSV file is what: image, patient, study, label (findings joined) or finding (one a "
        "column; may be repeated), view, sex, age, split.",
        show_default=False,
    ),
]
PositiveOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--positive",
        metavar="CELL",
        help="A cell of the finding columns that means present; may be repeated.",
        show_default=False,
    ),
]
SeparatorOption = Annotated[str, typer.Option("--separator", help="What joins findings in the column label.")]
UncertainOption = Annotated[
    Optional[PolicyName],  # noqa: UP045
    typer.Option(
        "--uncertain",
        help="What a label of -1 becomes: unknown (ignore), absent (zeros) or present (ones). Default: ignore.",
        show_default=False,
    ),
]
EmptyOption = Annotated[
    Optional[PolicyName],  # noqa: UP045
    typer.Option(
        "--empty",
        help="What an empty label becomes: unknown (ignore), absent (zeros) or present (ones). Default: ignore.",
        show_default=False,
    ),
]
TableArgument = Annotated[Path, typer.Argument(help="A table (.parquet).", show_default=False)]
TableOutput = Annotated[Path, typer.Option("-o", "--output", help="The table to write.", show_default=False)]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a recipe's key (hilum recipes --keys lists them); may be repeated.",
        show_default=False,
    ),
]
AllowLeakOption = Annotated[
    bool,
    typer.Option(
        "--allow-leak",
        help="Go on though patients or pictures stand in two parts of the split; every report says so.",
    ),
]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="The framework that trains.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of tables.")]
ExpectOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--expect",
        metavar="HASH",
        help="Refuse any bundle whose hash does not begin with these 8 to 64 digits.",
        show_default=False,
    ),
]
BundleArgument = Annotated[
    Path, typer.Argument(help="A bundle, or a run's folder that holds one.", show_default=False)
]


def check_folder(folder: Path, *, option: str = "-o", reports: Sequence[str] = ()) -> None:
    """Refuses a file where a folder will be written, before any work or read of the test.

    Args:
        folder: What the command will write.
        option: By which it was named.
        reports: Files by which a report of the same kind is known, which is replaced; whatever else fills the folder is
            refused. Nothing is where none is named.
    """
    from hilum.errors import UsageError

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option} {folder} is a file; give a folder")
    if not reports or not folder.is_dir() or not any(folder.iterdir()):
        return
    if not any((folder / name).is_file() for name in reports):
        raise UsageError(
            f"{option} {folder} already holds something else than such a report (no {reports[0]}); "
            "give another folder, or remove what is in it"
        )


def check_report(folder: Path, *, own_test: bool) -> None:
    """Refuses a folder that the report of an evaluation must not go to.

    Args:
        folder: What the command will write.
        own_test: Whether it is of a model's own test, whose report `hilum runs` and external tests read, and which
            nothing else replaces.
    """
    from hilum.errors import UsageError
    from hilum.evaluation.external import holds_own_test

    check_folder(folder, reports=("report.html", "metrics.json"))
    if not own_test and holds_own_test(folder):
        raise UsageError(f"-o {folder} holds the report of a model's own test; give another folder")


def check_file(path: Path, *, option: str = "-o", read: Sequence[Path] = ()) -> None:
    """Refuses to write over a file, before any work.

    Args:
        path: What the command will write.
        option: By which it was named.
        read: What the command reads.
    """
    from hilum.errors import UsageError

    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give a file")
    if path.exists() and any(one.exists() and path.samefile(one) for one in read):
        raise UsageError(f"{option} {path} is what the command reads; give another file")
    if path.exists():
        raise UsageError(f"{option} {path} is there already; give another file, or remove it first")


def check_table(path: Path, *, option: str = "-o", read: Sequence[Path] = ()) -> None:
    """Refuses to write over a table or the boxes of one, and what cannot be a table; see `check_file`."""
    from hilum.data.table import boxes_path, parquet_path

    check_file(parquet_path(path), option=option, read=read)
    check_file(boxes_path(path), option=option)
