"""`hilum data`: data sets of any layout -> tables, and what is done with tables."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hilum.cli.options import (
    ColumnOption,
    EmptyOption,
    ImagesOption,
    JsonOption,
    LayoutOption,
    PolicyName,
    PositiveOption,
    RemapOption,
    SeparatorOption,
    TableArgument,
    TableOutput,
    UncertainOption,
    check_folder,
    check_table,
)
from hilum.progress import count

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Data sets of any supported layout: read, look at, check, join.",
    epilog="Begin with: hilum data index chest_xray -o table.parquet",
)


@app.command(
    "index",
    epilog="Examples: hilum data index chest_xray -o table.parquet;  "
    "hilum data index CheXpert-v1.0-small --uncertain ones --empty zeros -o table.parquet;  "
    "hilum data index ours.csv --column image=file --column patient=pid --column finding=tb --positive yes",
)
def data_index(
    source: Annotated[Path, typer.Argument(help="A data set's folder, CSV or npz file.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The table to write.")] = Path(
        "table.parquet"
    ),
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    uncertain: UncertainOption = None,
    empty: EmptyOption = None,
    column: ColumnOption = None,
    positive: PositiveOption = None,
    separator: SeparatorOption = "|",
    as_json: JsonOption = False,
) -> None:
    """Read a data set of any supported layout into a table."""
    check_table(output, read=[source])
    table = read_table(
        source,
        layout=layout,
        images=images,
        remap=remap,
        columns=_columns(column, positive, separator),
        uncertain=uncertain,
        empty=empty,
    )
    table.write(output)
    _show_table(table, output, as_json=as_json)


@app.command("merge", epilog="Example: hilum data merge nih.parquet rsna.parquet -o both.parquet")
def data_merge(
    tables: Annotated[list[Path], typer.Argument(help="Tables (.parquet), two or more.", show_default=False)],
    output: TableOutput,
    as_json: JsonOption = False,
) -> None:
    """Join tables of several data sets into one.

    The result has all their findings; what a data set does not know of its images is unknown there.
    """
    from hilum.cli.terminal import Terminal
    from hilum.data.merge import merge
    from hilum.data.table import Table

    check_table(output, read=tables)
    watch = Terminal()
    watch.stage("Merging")
    joined = merge([Table.read(path) for path in tables])
    watch.finish(f"{count(len(tables), 'table')} joined")
    joined.write(output)
    say_notes(joined.notes)
    _show_table(joined, output, as_json=as_json)


@app.command(
    "filter",
    epilog="Example: hilum data filter nih.parquet \"view == 'PA' and age >= 18 and not Pleural_Thickening\" "
    "-o adults.parquet",
)
def data_filter(
    table: TableArgument,
    expression: Annotated[
        str,
        typer.Argument(
            help="Columns and findings with ==, !=, <, <=, >, >=, in, and, or, not; a finding alone: it is present.",
            show_default=False,
        ),
    ],
    output: TableOutput,
    as_json: JsonOption = False,
) -> None:
    """Keep the rows of a table for which an expression is true."""
    from hilum.data.filter import filter_rows
    from hilum.data.table import Table

    check_table(output, read=[table])
    filtered = filter_rows(Table.read(table), expression)
    filtered.table.write(output)
    say_notes(filtered.table.notes[-1:])
    _show_table(filtered.table, output, as_json=as_json)


@app.command(
    "relabel",
    epilog="Example: hilum data relabel nih.parquet radiologists.csv --column image=file --column finding=Pneumothorax "
    "-o relabelled.parquet",
)
def data_relabel(
    table: TableArgument,
    other: Annotated[
        Path,
        typer.Argument(help="The second labels: a CSV file, a data set or a table.", show_default=False),
    ],
    output: TableOutput,
    layout: LayoutOption = None,
    uncertain: UncertainOption = None,
    empty: EmptyOption = None,
    column: ColumnOption = None,
    positive: PositiveOption = None,
    separator: SeparatorOption = "|",
    as_json: JsonOption = False,
) -> None:
    """Replace a table's labels by a second set for the same images.

    Tells how far the two agree, finding by finding. Patients, split and boxes stay.
    """
    from hilum.cli.terminal import show, show_json
    from hilum.data.relabel import relabel
    from hilum.data.table import Table

    check_table(output, read=[table, other])
    first = Table.read(table)
    second = read_table(
        other,
        layout=layout,
        images=None,
        remap=None,
        columns=_columns(column, positive, separator),
        uncertain=uncertain,
        empty=empty,
        quiet=True,
    )
    result = relabel(first, second)
    result.table.write(output)
    say_notes(result.table.notes[len(first.notes) :])
    if as_json:
        figures = (
            "both",
            "first_only",
            "second_only",
            "neither",
            "one_sided",
            "kappa",
            "positive",
            "negative",
        )
        agreed = {
            one.finding: {name: _finite(getattr(one, name)) for name in figures} for one in result.agreement
        }
        show_json({**_summary(result.table, output), "matched": result.matched, "agreement": agreed})
        return
    _show_table(result.table, output, as_json=False)
    show(
        [
            [
                one.finding,
                *(f"{count:,}" for count in (one.both, one.first_only, one.second_only, one.neither)),
                *("" if isnan(figure) else f"{figure:.3f}" for figure in (one.kappa, one.positive)),
            ]
            for one in result.agreement
        ],
        header=["finding", "both", "old only", "new only", "neither", "kappa", "positive agreement"],
        right=range(1, 7),
    )


@app.command(
    "explore",
    epilog="Examples: hilum data explore chest_xray -o explored;  hilum data explore runs/k -o explored;  "
    "hilum data explore nih --images nih/images_256 -o explored",
)
def data_explore(
    source: Annotated[
        Path,
        typer.Argument(
            help="A data set's folder or CSV file, a table (.parquet), or a run's folder.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder for page, pictures and numbers.")
    ] = Path("explored"),
    layout: LayoutOption = None,
    images: ImagesOption = None,
    limit: Annotated[
        int,
        typer.Option("--limit", min=0, help="Images of each class that are read, at most; 0 reads none."),
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Chooses which images are read.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what a data set holds: one page, pictures and numbers.

    To be looked at before anything is trained on it.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show_json
    from hilum.data.exploration import explore
    from hilum.errors import UsageError
    from hilum.report.exploration import page as report, sentences

    check_folder(output, reports=("explore.html",))
    stored = _of_run(source)
    if stored == source and source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"-o {output} lies in {source}, where the pictures would be taken for radiographs; give another folder"
        )
    table = read_table(stored, layout=layout, images=images, remap=None, quiet=True)
    watch = Terminal()
    found = explore(table, limit=limit, seed=seed, watch=watch)
    watch.stage("Drawing")
    place = source.resolve()
    page = report.write(output, found, title=place.name if place.is_dir() else place.stem)
    watch.finish(f"{sentences.cohort(found)}, {found.num_read:,} of them read. {RESEARCH}")
    if found.unreadable:
        unreadable = count(len(found.unreadable), "file")
        watch.say(f"warning: {unreadable} cannot be read; explore.json lists what")
    if as_json:
        show_json(found.to_dict())
        return
    for sentence in report.notable(found):
        typer.echo(f"- {sentence}")
    typer.echo(f"page: {page}")


@app.command(
    "audit",
    epilog="Examples: hilum data audit chest_xray -o audit;  hilum data audit table.parquet --json;  "
    "hilum data audit runs/k;  hilum data audit table.parquet --without-leaks clean.parquet",
)
def data_audit(
    source: Annotated[
        Path,
        typer.Argument(
            help="A table (.parquet), a data set's folder or CSV file, or a run's folder.", show_default=False
        ),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="The folder for audit.html and audit.json.", show_default=False),
    ] = None,
    without_leaks: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--without-leaks",
            help="Write the table without what leaks to this file (.parquet): of a patient or picture in several parts "
            "what is in test stays, without test what is in val.",
            show_default=False,
        ),
    ] = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks, copies, wrong labels and broken images.

    Exit status 1 where a split leaks.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.data.audit import audit
    from hilum.errors import UsageError

    if output is not None:
        check_folder(output, reports=("audit.html",))
    stored = _of_run(source)
    if without_leaks is not None:
        if without_leaks.suffix != ".parquet":
            raise UsageError(f"--without-leaks {without_leaks} should be a file that ends in .parquet")
        check_table(without_leaks, option="--without-leaks", read=[stored])
    table = read_table(stored, layout=layout, images=images, remap=remap)
    watch = Terminal()
    found = audit(table, watch=watch)
    if output is not None:
        from hilum.report.audit import page as page

        watch.stage("Writing the page")
        written = page.write(output, found)
        watch.finish(f"page: {written}")
    if without_leaks is not None:
        clean = found.without_leaks()
        clean.write(without_leaks)
        watch.say(f"written: {without_leaks}, {len(clean):,} of {count(len(table), 'image')}")
    if as_json:
        show_json(found.to_dict())
    else:
        checks = found.summary()
        show(checks.to_numpy().tolist(), header=list(checks.columns), right=(1,))
        watch.say(f"{found.verdict} {RESEARCH}")
    if found.leaks:
        raise typer.Exit(1)


def _of_run(source: Path) -> Path:
    """The table of a run's folder; anything else as it is."""
    from hilum.runs.folder import RunFolder

    run = RunFolder(source)
    return run.table if run.recipe.is_file() and run.table.is_file() else source


def _summary(table: Any, output: Path) -> dict[str, Any]:
    """What a table holds, for --json."""
    labels = table.labels(table.findings)
    counts = {
        finding: {"present": int((column == 1).sum()), "absent": int((column == 0).sum())}
        for finding, column in zip(table.findings, labels.T, strict=True)
    }
    splits = {name or "none": int(count) for name, count in table.frame["split"].value_counts().items()}
    return {
        "table": str(output),
        "sources": [part.name for part in table.sources],
        "images": len(table),
        "patients": table.num_patients,
        "boxes": len(table.boxes),
        "split": splits,
        "findings": counts,
        "notes": list(table.notes),
    }


def _show_table(table: Any, output: Path, *, as_json: bool) -> None:
    """Shows what a table that was written holds."""
    from hilum.cli.terminal import show, show_json, show_pairs

    summary = _summary(table, output)
    if as_json:
        show_json(summary)
        return
    pairs = {
        "table": str(output),
        "source": ", ".join(summary["sources"]),
        "images": f"{len(table):,} of {count(table.num_patients, 'patient')}",
        "boxes": f"{len(table.boxes):,}",
        "split": ", ".join(f"{name} {count:,}" for name, count in summary["split"].items()),
    }
    show_pairs(pairs)
    show(
        [
            [finding, f"{count['present']:,}", f"{count['absent']:,}"]
            for finding, count in summary["findings"].items()
        ],
        header=["finding", "present", "absent"],
        right=(1, 2),
    )


def say_notes(notes: Sequence[str]) -> None:
    """Says what a reader of a table should know."""
    from hilum.cli.terminal import Terminal

    watch = Terminal()
    for note in notes:
        watch.say(f"note: {note}")


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return None if isnan(value) else value


def _columns(pairs: list[str] | None, positive: list[str] | None, separator: str) -> Any:
    """Returns a column map where one was given."""
    from hilum.data.readers.csv_map import parse_columns
    from hilum.errors import UsageError

    if not pairs:
        if positive or separator != "|":
            raise UsageError(
                "--positive and --separator belong to a column map; give --column image=COLUMN ... too"
            )
        return None
    return parse_columns(pairs, separator=separator, positive=positive or ())


def check_source(source: Path | None) -> None:
    """Refuses data that are not there, before what takes seconds to load."""
    from hilum.errors import UsageError

    if source is not None and not source.exists():
        raise UsageError(f"there is no file or folder {source}")


def read_table(
    source: Path,
    *,
    layout: str | None,
    images: Path | None,
    remap: str | None,
    columns: Any = None,
    uncertain: PolicyName | None = None,
    empty: PolicyName | None = None,
    quiet: bool = False,
) -> Any:
    """Reads the data set, file or table that a command was given."""
    from hilum.cli.terminal import Terminal
    from hilum.data import readers
    from hilum.errors import UsageError

    pair = None
    if remap is not None:
        old, equals, new = remap.partition("=")
        if not equals or not old:
            raise UsageError(f"--remap {remap!r} is not of the form OLD=NEW")
        pair = (old, new)
    watch = Terminal()
    watch.stage(f"Reading {source}")
    table = readers.read(
        source,
        name=layout,
        images=images,
        remap=pair,
        columns=columns,
        uncertain=uncertain.value if uncertain else "",
        empty=empty.value if empty else "",
    )
    watch.finish(
        f"{count(len(table), 'image')} of {count(table.num_patients, 'patient')} "
        f"({', '.join(s.name for s in table.sources)})"
    )
    if not quiet:
        say_notes(table.notes)
    return table
