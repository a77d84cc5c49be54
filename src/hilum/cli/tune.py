"""`hilum tune`: which values of a recipe's keys do best on validation."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hilum.cli.options import (
    AllowLeakOption,
    EngineName,
    EngineOption,
    ImagesOption,
    LayoutOption,
    RemapOption,
    SetOption,
    SourceOption,
)

EXIT_INTERRUPTED = 130


class SearchName(StrEnum):
    """The searches that exist."""

    grid = "grid"
    tpe = "tpe"


def tune(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (hilum recipes) or a TOML file.")],
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            metavar="KEY=VALUES",
            help="What is tried: KEY=a,b,c choices, KEY=low..high a range, KEY=low..high:log by its logarithm; may be "
            "repeated.",
            show_default=False,
        ),
    ],
    data: SourceOption = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o", "--output", help="The study's folder; tuned/RECIPE if not given.", show_default=False
        ),
    ] = None,
    search: Annotated[
        SearchName,
        typer.Option(
            "--search",
            help="grid: every combination of choices; tpe: each trial where those before promise most.",
        ),
    ] = SearchName.grid,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--trials", min=1, help="With --search tpe: how many; 20 if not given.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="How many trials at a time, each a process on this machine."),
    ] = 1,
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--storage",
            help="Address of a database, for other machines to join by the same command; a file in the folder if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--prune/--no-prune",
            help="End trials early that do worse than half of those before; if not given, with tpe alone.",
            show_default=False,
        ),
    ] = None,
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    allow_leak: AllowLeakOption = False,
) -> None:
    """Search for the values of a recipe that do best.

    They are compared on validation.
    The test is not read. Run the same command again to go on, or with more --trials; best.toml is for hilum train.
    """
    from hilum.cli.data import read_table
    from hilum.cli.terminal import RESEARCH
    from hilum.cli.train import load_watched
    from hilum.errors import UsageError, require
    from hilum.tuning import study

    require("optuna", extra="tune")
    if trials is not None and search is SearchName.grid:
        raise UsageError("--trials goes with --search tpe; a grid has as many trials as combinations")
    varied = study.parse_vary(vary)
    settings, watch = load_watched(recipe, changes, needs_data=data is None)
    study.dimensions(settings, varied, search=search.value)  # before what takes seconds to load
    from hilum.training.train import draw_phantoms
    from hilum.tuning.tune import BEST, TuneOptions, check, tune as search_for

    folder = output or Path("tuned") / Path(recipe).stem
    asked: dict[str, Any] = {
        "vary": varied,
        "search": search.value,
        "engine": engine.value,
        "options": TuneOptions(trials or 20, workers, storage, prune, allow_leak),
    }
    check(settings, folder, **asked)
    table = read_table(data, layout=layout, images=images, remap=remap) if data else None
    found = search_for(
        settings,
        table if table is not None else draw_phantoms(settings, watch),
        folder,
        **asked,
        watch=watch,
    )
    best = found.ranked.iloc[0]
    values = ", ".join(f"{each.key}={study.show(best[each.key])}" for each in found.dimensions)
    again = f", {found.begun_again} begun again after a worker died" if found.begun_again else ""
    watch.say(
        f"{len(found.trials)} of {found.planned} trials done{again}; best {found.figure} {best['value']:.4f} on "
        f"validation, trial {best['trial']}: {values}. {RESEARCH}"
    )
    if found.nothing_learned:
        watch.say(f"warning: {found.nothing_learned}")
    typer.echo(f"page: {found.folder / 'tune.html'}")
    if found.interrupted:
        watch.say("interrupted; the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED)
    given = {
        "--data": data,
        "--images": images,
        "--as": layout,
        "--engine": engine if engine != "torch" else None,
    }
    told = "".join(f" {option} {value}" for option, value in given.items() if value)
    told += "".join(f" --remap {each}" for each in remap or ())
    watch.say(f"next: hilum train {found.folder / BEST}{told}")
