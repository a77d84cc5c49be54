"""`hilum data`: data sets of any layout -> tables, and what is done with tables."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.options import (
    ImagesOption,
    JsonOption,
    LabelOptions,
    LayoutOption,
    ReadingOptions,
    TableArgument,
    TableOutput,
    argument,
    check_folder,
    check_table,
    expanded,
    option,
)
from hilum.errors import UsageError
from hilum.progress import count

AGREEMENT = ("both", "first_only", "second_only", "neither", "one_sided", "kappa", "positive", "negative")

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
@expanded("source output layout images remap rename uncertain empty column positive separator as_json")
def data_index(
    source: Annotated[Path, argument(help="A data set's folder, CSV or npz file.")],
    reading: ReadingOptions,
    labels: LabelOptions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The table to write.")] = Path(
        "table.parquet"
    ),
    as_json: JsonOption = False,
) -> None:
    """Read a data set of any supported layout into a table."""
    check_table(output, read=[source])
    table = read_table(source, reading, labels)
    table.write(output)
    _show_table(table, output, as_json=as_json)


@app.command(
    "merge",
    epilog="Examples: hilum data merge nih.parquet rsna.parquet -o both.parquet;  "
    "hilum data merge chest_xray nih.parquet -o both.parquet",
)
def data_merge(
    tables: Annotated[
        list[Path], argument(help="Tables (.parquet), or data sets' folders or CSV files; two or more.")
    ],
    output: TableOutput,
    as_json: JsonOption = False,
) -> None:
    """Join tables of several data sets into one.

    The result has all their findings; what a data set does not know of its images is unknown there.
    """
    from hilum.cli.terminal import Terminal
    from hilum.data import readers
    from hilum.data.merge import merge

    check_table(output, read=tables)
    watch = Terminal()
    watch.stage("Merging")
    joined = merge([readers.read(path) for path in tables])
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
        argument(
            help="Columns and findings with ==, !=, <, <=, >, >=, in, and, or, not; a finding alone: it is present."
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
@expanded("table other output layout uncertain empty column positive separator as_json")
def data_relabel(
    table: TableArgument,
    other: Annotated[Path, argument(help="The second labels: a CSV file, a data set or a table.")],
    output: TableOutput,
    labels: LabelOptions,
    layout: LayoutOption = None,
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
    second = read_table(other, ReadingOptions(layout), labels, quiet=True)
    result = relabel(first, second)
    result.table.write(output)
    say_notes(result.table.notes[len(first.notes) :])
    if as_json:
        agreed = {
            row.finding: {name: _finite(getattr(row, name)) for name in AGREEMENT} for row in result.agreement
        }
        show_json({**_summary(result.table, output), "matched": result.matched, "agreement": agreed})
        return
    _show_table(result.table, output, as_json=False)
    show(
        [
            [
                row.finding,
                *(f"{count:,}" for count in (row.both, row.first_only, row.second_only, row.neither)),
                *("" if isnan(figure) else f"{figure:.3f}" for figure in (row.kappa, row.positive)),
            ]
            for row in result.agreement
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
        Path, argument(help="A data set's folder or CSV file, a table (.parquet), or a run's folder.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder for page, pictures and numbers.")
    ] = Path("explored"),
    layout: LayoutOption = None,
    images: ImagesOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Images of each class that are read, at most; 0 reads none.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Chooses which images are read.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what a data set holds: one page, pictures and numbers.

    To be looked at before anything is trained on it.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show_json
    from hilum.data.exploration import explore
    from hilum.report.exploration import page, sentences

    check_folder(output, reports=("explore.html",))
    stored = _of_run(source)
    if stored == source and source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"-o {output} lies in {source}, where the pictures would be taken for radiographs; give another folder"
        )
    table = read_table(stored, ReadingOptions(layout, images), quiet=True)
    watch = Terminal()
    exploration = explore(table, limit=limit, seed=seed, watch=watch)
    watch.stage("Drawing")
    place = source.resolve()
    path = page.write(output, exploration, title=place.name if place.is_dir() else place.stem)
    watch.finish(f"{sentences.cohort(exploration)}, {exploration.num_read:,} of them read. {RESEARCH}")
    if exploration.unreadable:
        unreadable = count(len(exploration.unreadable), "file")
        watch.say(f"warning: {unreadable} cannot be read; explore.json lists what")
    if as_json:
        show_json(exploration.to_dict())
        return
    for sentence in sentences.notable(exploration):
        typer.echo(f"- {sentence}")
    typer.echo(f"page: {path}")


@app.command(
    "audit",
    epilog="Examples: hilum data audit chest_xray -o audit;  hilum data audit table.parquet --json;  "
    "hilum data audit runs/k;  hilum data audit table.parquet --without-leaks clean.parquet",
)
@expanded("source output without_leaks layout images remap rename as_json")
def data_audit(
    source: Annotated[
        Path, argument(help="A table (.parquet), a data set's folder or CSV file, or a run's folder.")
    ],
    reading: ReadingOptions,
    output: Annotated[
        Path | None, option("-o", "--output", help="The folder for audit.html and audit.json.")
    ] = None,
    without_leaks: Annotated[
        Path | None,
        option(
            "--without-leaks",
            help="Write the table without what leaks to this file (.parquet): of a patient or picture in several parts "
            "what is in test stays, without test what is in val.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks, copies, wrong labels and broken images.

    Exit status 1 where a split leaks.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.data.audit import audit

    if output is not None:
        check_folder(output, reports=("audit.html",))
    stored = _of_run(source)
    if without_leaks is not None:
        if without_leaks.suffix != ".parquet":
            raise UsageError(f"--without-leaks {without_leaks} should be a file that ends in .parquet")
        check_table(without_leaks, option="--without-leaks", read=[stored])
    table = read_table(stored, reading)
    watch = Terminal()
    result = audit(table, watch=watch)
    if output is not None:
        from hilum.report.audit import page

        watch.stage("Writing the page")
        written = page.write(output, result)
        watch.finish(f"page: {written}")
    if without_leaks is not None:
        clean = result.without_leaks()
        clean.write(without_leaks)
        watch.say(f"written: {without_leaks}, {len(clean):,} of {count(len(table), 'image')}")
    if as_json:
        show_json(result.to_dict())
    else:
        checks = result.summary()
        show(checks.to_numpy().tolist(), header=list(checks.columns), right=(1,))
        watch.say(f"{result.verdict} {RESEARCH}")
    if result.leaks:
        raise typer.Exit(1)


def _of_run(source: Path) -> Path:
    """Return the table of a run's folder; anything else as it is."""
    from hilum.runs.folder import RunFolder

    run = RunFolder(source)
    return run.table if run.recipe.is_file() and run.table.is_file() else source


def _summary(table: Any, output: Path) -> dict[str, Any]:
    """Return what a table holds, for --json."""
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
    """Show what a table that was written holds."""
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
    """Say what a reader of a table should know."""
    from hilum.cli.terminal import Terminal

    watch = Terminal()
    for note in notes:
        watch.say(f"note: {note}")


def _finite(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if isnan(value) else value


def check_source(source: Path | None) -> None:
    """Refuse data that are not there, before what takes seconds to load."""
    if source is not None and not source.exists():
        raise UsageError(f"there is no file or folder {source}")


def read_table(
    source: Path, reading: ReadingOptions, labels: LabelOptions | None = None, *, quiet: bool = False
) -> Any:
    """Return the Table of the data set, file or table that a command was given; `quiet` leaves its notes unsaid."""
    from hilum.cli.terminal import Terminal
    from hilum.data import readers
    from hilum.data.rename import rename

    labels = labels or LabelOptions()
    columns, remap, names = labels.columns(), reading.remapping(), reading.renaming()
    watch = Terminal()
    watch.stage(f"Reading {source}")
    table = readers.read(
        source,
        name=reading.layout,
        images=reading.images,
        remap=remap,
        columns=columns,
        uncertain=str(labels.uncertain or ""),
        empty=str(labels.empty or ""),
    )
    if names:
        table = rename(table, names)
    sources = ", ".join(part.name for part in table.sources)
    watch.finish(f"{count(len(table), 'image')} of {count(table.num_patients, 'patient')} ({sources})")
    if not quiet:
        say_notes(table.notes)
    return table
