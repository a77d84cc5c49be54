"""Options and arguments that several commands take, and what is checked of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.errors import UsageError
from hilum.files import check_writable


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


option = partial(typer.Option, show_default=False)
argument = partial(typer.Argument, show_default=False)

SourceOption = Annotated[
    Path | None, option("--data", help="A data set's folder, its CSV file, or a table (.parquet).")
]
LayoutOption = Annotated[
    str | None,
    option(
        "--as",
        metavar="LAYOUT",
        help="The data set's layout, where detection is not enough: kermany, nih, chexpert, rsna, vinbigdata, "
        "medmnist, labeled, folders or csv.",
    ),
]
ImagesOption = Annotated[
    Path | None, option("--images", help="The folder of the images, if they are not where the table says.")
]
TableArgument = Annotated[Path, argument(help="A table (.parquet).")]
TableOutput = Annotated[Path, option("-o", "--output", help="The table to write.")]
BundleOutput = Annotated[Path, option("-o", "--output", help="The new bundle's folder.")]
SetOption = Annotated[
    list[str] | None,
    option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a recipe's key (hilum recipes --keys lists them); may be repeated.",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="The framework that trains.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of tables.")]
ExpectOption = Annotated[
    str | None,
    option(
        "--expect",
        metavar="HASH",
        help="Refuse any bundle whose hash does not begin with these 8 to 64 digits.",
    ),
]
BundleArgument = Annotated[Path, argument(help="A bundle, or a run's folder that holds one.")]


@dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read."""

    layout: LayoutOption = None
    images: ImagesOption = None
    remap: Annotated[
        str | None,
        option(
            "--remap",
            metavar="OLD=NEW",
            help="Image paths that begin with OLD begin with NEW instead; / and \\ are the same.",
        ),
    ] = None

    rename: Annotated[
        list[str] | None,
        option(
            "--rename",
            metavar="OLD=NEW",
            help="A finding gets another name, for example TB=Tuberculosis; may be repeated.",
        ),
    ] = None

    def remapping(self) -> tuple[str, str] | None:
        """Return OLD and NEW of `--remap`; raise UsageError for another form."""
        if self.remap is None:
            return None
        old, equals, new = self.remap.partition("=")
        if not equals or not old:
            raise UsageError(f"--remap {self.remap!r} is not of the form OLD=NEW")
        return old, new

    def renaming(self) -> dict[str, str]:
        """Return OLD -> NEW of every `--rename`; raise UsageError for another form."""
        names = {}
        for pair in self.rename or ():
            old, equals, new = pair.rpartition("=")
            if not equals or not old:
                raise UsageError(f"--rename {pair!r} is not of the form OLD=NEW")
            names[old] = new
        return names


@dataclass(frozen=True)
class TrainingDataOptions(ReadingOptions):
    """The data that a model is trained on; without a source the recipe draws its own."""

    source: SourceOption = None
    labels: Annotated[
        Path | None,
        option("--labels", help="The CSV file with the findings of the images in the folder --data."),
    ] = None
    allow_leak: Annotated[
        bool,
        typer.Option(
            "--allow-leak",
            help="Go on though patients or pictures stand in two parts of the split; every report says so.",
        ),
    ] = False


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe that is trained, and by which engine."""

    recipe: Annotated[
        str | None,
        argument(
            help="A shipped recipe's name (hilum recipes) or a TOML file; if not given one is chosen for the data."
        ),
    ] = None
    engine: EngineOption = EngineName.torch
    changes: SetOption = None


@dataclass(frozen=True)
class LabelOptions:
    """How labels become findings."""

    uncertain: Annotated[
        PolicyName | None,
        option(
            "--uncertain",
            help="What a label of -1 becomes: unknown (ignore), absent (zeros) or present (ones). Default: ignore.",
        ),
    ] = None
    empty: Annotated[
        PolicyName | None,
        option(
            "--empty",
            help="What an empty label becomes: unknown (ignore), absent (zeros) or present (ones). Default: ignore.",
        ),
    ] = None
    column: Annotated[
        list[str] | None,
        option(
            "--column",
            metavar="FIELD=COLUMN",
            help="Which column of a CSV file is what: image, patient, study, label (findings joined) or finding (one a "
            "column; may be repeated; finding:NAME gives it another name), view, sex, age, split. Plain columns are "
            "found without it.",
        ),
    ] = None
    positive: Annotated[
        list[str] | None,
        option(
            "--positive",
            metavar="CELL",
            help="A cell of the finding columns that means present, such as yes; may be repeated.",
        ),
    ] = None
    separator: Annotated[
        str, typer.Option("--separator", help="What joins findings in the column label.")
    ] = "|"

    def columns(self) -> Any:
        """Return the ColumnMap that `--column` gives, or None without one."""
        from hilum.data.readers.csv_map import parse_columns

        if self.column:
            return parse_columns(self.column, separator=self.separator, positive=self.positive or ())
        if self.positive or self.separator != "|":
            raise UsageError(
                "--positive and --separator belong to a column map; give --column image=COLUMN ... too"
            )
        return None


def expanded(order: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that shows Typer a command whose groups of options are spelled out.

    A group is a parameter whose type is a dataclass: the fields of the class take its place among the command's
    options, and the command gets the group as one value.

    Args:
        order: Every name in the order of `--help`; if not given, that of the parameters and fields.
    """
    names = order.split()

    def expand(command: Callable[..., None]) -> Callable[..., None]:
        groups: dict[str, Any] = {}
        parameters: list[Parameter] = []
        for parameter in signature(command).parameters.values():
            kind = parameter.annotation
            if isinstance(kind, type) and is_dataclass(kind):
                groups[parameter.name] = kind
                parameters += signature(kind).parameters.values()
            else:
                parameters.append(parameter)
        if names:
            parameters.sort(key=lambda parameter: names.index(parameter.name))

        @wraps(command)
        def run(**values: Any) -> None:
            gathered = {
                name: group(**{field.name: values.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            command(**values, **gathered)

        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__signature__ = Signature(keywords)  # type: ignore[attr-defined]
        return run

    return expand


def check_folder(folder: Path, *, option: str = "-o", reports: Sequence[str] = ()) -> None:
    """Refuse a folder that cannot be written, before any work or read of the test.

    Args:
        folder: What the command will write.
        option: By which it was named.
        reports: Files by which a report of the same kind is known, which is replaced; whatever else fills the folder is
            refused. Nothing is where none is named.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option} {folder} is a file; give a folder")
    check_writable(folder, option=option)
    if not reports or not folder.is_dir() or not any(folder.iterdir()):
        return
    if not any((folder / name).is_file() for name in reports):
        raise UsageError(
            f"{option} {folder} already holds something else than such a report (no {reports[0]}); "
            "give another folder, or remove what is in it"
        )


def check_report(folder: Path, *, own_test: bool) -> None:
    """Refuse a folder that the report of an evaluation must not go to.

    Args:
        folder: What the command will write.
        own_test: Whether it is of a model's own test, whose report `hilum runs` and external tests read, and which
            nothing else replaces.
    """
    from hilum.evaluation.external import holds_own_test

    check_folder(folder, reports=("report.html", "metrics.json"))
    if not own_test and holds_own_test(folder):
        raise UsageError(f"-o {folder} holds the report of a model's own test; give another folder")


def check_file(path: Path, *, option: str = "-o", read: Sequence[Path] = ()) -> None:
    """Refuse to write over a file, or where none can be written, before any work.

    Args:
        path: What the command will write.
        option: By which it was named.
        read: What the command reads.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give a file")
    if path.exists() and any(source.exists() and path.samefile(source) for source in read):
        raise UsageError(f"{option} {path} is what the command reads; give another file")
    if path.exists():
        raise UsageError(f"{option} {path} is there already; give another file, or remove it first")
    check_writable(path, option=option)


def check_table(path: Path, *, option: str = "-o", read: Sequence[Path] = ()) -> None:
    """Refuse to write over a table or the boxes of one, and what cannot be a table; see `check_file`."""
    from hilum.data.table import boxes_path, parquet_path

    check_file(parquet_path(path), option=option, read=read)
    check_file(boxes_path(path), option=option)
