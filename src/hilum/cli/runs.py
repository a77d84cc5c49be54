"""`hilum runs` and `hilum compare`: what lies below a folder; models of finished runs on the same test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.options import ImagesOption, JsonOption, argument, check_folder, option
from hilum.errors import UsageError

RUN_COLUMNS = (
    "run",
    "recipe",
    "architecture",
    "engine",
    "epochs",
    "best",
    "monitored there",
    "val AUROC",
    "test AUROC (95 %)",
    "time",
    "state",
)


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder with runs in it or below.")] = Path("runs"),
    key: Annotated[
        str,
        typer.Option(
            "--sort",
            help="By what to sort: run, recipe, architecture, engine, epochs, best_epoch, monitored, val_auroc, "
            "test_auroc, seconds or state.",
        ),
    ] = "run",
    as_json: JsonOption = False,
) -> None:
    """List runs: their state, figures and differences.

    What became of each, its validation and test AUROC, and in what the recipes differ.
    """
    from hilum.cli.terminal import Terminal, show, show_json
    from hilum.runs.folder import RECIPE
    from hilum.runs.listing import find_runs, recipe_differences, sort_runs

    summaries = sort_runs(find_runs(folder), key)
    different = recipe_differences(summaries)
    if as_json:
        show_json({"runs": [run.to_dict() for run in summaries], "differences": different})
        return
    if not summaries:
        raise UsageError(
            f"no run in {folder} or below; a run is a folder with {RECIPE}, as hilum train writes"
        )
    show(list(map(_run_row, summaries)), header=RUN_COLUMNS, right=(5, 7), spare=(3, 2, 1, 9))
    if different:
        typer.echo()
        show(_difference_rows(different), header=["recipes differ in", "value", "runs"])
    watch = Terminal()
    for run in summaries:
        for problem in run.problems:
            watch.say(f"{run.name}: {problem}")
    if sum(run.test_auroc is not None for run in summaries) > 1:
        watch.say("choose by validation: the best of several test figures flatters")


def compare(
    folders: Annotated[
        list[Path], argument(help="Finished runs, each evaluated; the first is the reference.")
    ],
    output: Annotated[Path, option("-o", "--output", help="The report's folder.")],
    names: Annotated[
        list[str] | None,
        option(
            "--name",
            help="What to call a run; once for each run, in their order. Their folders' names if not given.",
        ),
    ] = None,
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare finished runs on the test images they share.

    Reads the predictions that `hilum evaluate RUN` stored, and no test again.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.comparison.compare import compare
    from hilum.report.comparison import page, plots

    check_folder(output)
    watch = Terminal()
    result = compare(folders, names=names or None, watch=watch, images=images)
    watch.stage("Writing the report")
    path = page.write(output, result)
    watch.finish()
    if as_json:
        show_json(result.to_dict())
        return
    for warning in result.warnings:
        watch.say(f"warning: {warning}")
    table = result.table()
    show(
        [[str(name), *row] for name, row in zip(table.index, table.to_numpy(str).tolist(), strict=True)],
        header=["model", *table.columns],
        right=range(1, 8),
        spare=(10, 9, 8, 12, 2, 4, 5, 13, 14, 11),
    )
    typer.echo()
    for verdict in plots.verdicts(result):
        typer.echo(verdict)
    patients = len(set(result.patients))
    watch.say(
        f"{result.data}: {len(result.images):,} test images of {patients:,} patients in common. {RESEARCH}"
    )
    typer.echo(f"report: {path}")


def _run_row(run: Any) -> list[str]:
    """Return a run's cells under RUN_COLUMNS."""
    from hilum.report import formatting

    recipe = run.recipe
    return [
        run.name,
        recipe.name if recipe else "",
        recipe.model.architecture if recipe else "",
        run.engine,
        f"{run.epochs}/{recipe.train.epochs}" if recipe else str(run.epochs),
        str(run.best_epoch or ""),
        "" if run.monitored is None else f"{run.monitor} {run.monitored:.4f}",
        "" if run.val_auroc is None else f"{run.val_auroc:.4f}",
        formatting.estimate(run.test_auroc) if run.test_auroc else "",
        "" if run.seconds is None else _duration(run.seconds),
        run.state,
    ]


def _difference_rows(different: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each value, with the runs that have it; the key stands at its first value."""
    from hilum.report import formatting

    rows = []
    for key, values in different.items():
        runs_of: dict[str, list[str]] = {}
        for name, value in values.items():
            runs_of.setdefault(formatting.setting(value) or "(none)", []).append(name)
        for number, (text, names) in enumerate(runs_of.items()):
            rows.append(["" if number else key, text, ", ".join(names)])
    return rows


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s"
        if seconds < 60
        else f"{minutes} min"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
