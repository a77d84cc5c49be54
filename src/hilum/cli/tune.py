"""`hilum tune`: which values of a recipe's keys do best on validation."""

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.group import EXIT_INTERRUPTED
from hilum.cli.options import RecipeOptions, TrainingDataOptions, expanded, option
from hilum.errors import UsageError, require


class SearchName(StrEnum):
    """The searches that exist."""

    grid = "grid"
    tpe = "tpe"


@dataclass(frozen=True)
class SearchOptions:
    """What is tried, and how."""

    vary: Annotated[
        list[str],
        option(
            "--vary",
            metavar="KEY=VALUES",
            help="What is tried: KEY=a,b,c choices, KEY=low..high a range, KEY=low..high:log by its logarithm; may be "
            "repeated.",
        ),
    ]
    search: Annotated[
        SearchName,
        typer.Option(
            "--search",
            help="grid: every combination of choices; tpe: each trial where those before promise most.",
        ),
    ] = SearchName.grid
    trials: Annotated[
        int | None, option("--trials", min=1, help="With --search tpe: how many; 20 if not given.")
    ] = None
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="How many trials at a time, each a process on this machine."),
    ] = 1
    storage: Annotated[
        str | None,
        option(
            "--storage",
            help="Address of a database, for other machines to join by the same command; a file in the folder if not "
            "given.",
        ),
    ] = None
    prune: Annotated[
        bool | None,
        option(
            "--prune/--no-prune",
            help="End trials early that do worse than half of those before; if not given, with tpe alone.",
        ),
    ] = None


@expanded(
    "recipe vary source labels output search trials workers storage prune engine changes layout images remap rename "
    "allow_leak"
)
def tune(
    chosen: RecipeOptions,
    data: TrainingDataOptions,
    options: SearchOptions,
    output: Annotated[
        Path | None, option("-o", "--output", help="The study's folder; tuned/RECIPE if not given.")
    ] = None,
) -> None:
    """Search for the values of a recipe that do best.

    They are compared on validation.
    The test is not read. Run the same command again to go on, or with more --trials; best.toml is for hilum train.
    """
    from hilum.cli.terminal import RESEARCH
    from hilum.cli.train import load_watched, training_table
    from hilum.tuning import study

    require("optuna", extra="tune")
    search, engine = options.search.value, chosen.engine.value
    if options.trials is not None and options.search is SearchName.grid:
        raise UsageError("--trials goes with --search tpe; a grid has as many trials as combinations")
    varied = study.parse_vary(options.vary)
    recipe, table, watch = load_watched(chosen, data)
    study.dimensions(recipe, varied, search=search)  # before what takes seconds to load
    from hilum.tuning.tune import BEST, TuneOptions, check, tune

    folder = output or Path("tuned") / Path(chosen.recipe or recipe.name).stem
    asked: dict[str, Any] = {
        "vary": varied,
        "search": search,
        "engine": engine,
        "options": TuneOptions(
            options.trials or 20, options.workers, options.storage, options.prune, data.allow_leak
        ),
    }
    check(recipe, folder, **asked)
    result = tune(
        recipe,
        table or training_table(recipe, data, watch),
        folder,
        **asked,
        watch=watch,
    )
    best = result.ranked.iloc[0]
    values = ", ".join(
        f"{dimension.key}={study.show(best[dimension.key])}" for dimension in result.dimensions
    )
    again = f", {result.begun_again} begun again after a worker died" if result.begun_again else ""
    watch.say(
        f"{len(result.trials)} of {result.planned} trials done{again}; best {result.figure} {best['value']:.4f} on "
        f"validation, trial {best['trial']}: {values}. {RESEARCH}"
    )
    if result.nothing_learned:
        watch.say(f"warning: {result.nothing_learned}")
    typer.echo(f"page: {result.folder / 'tune.html'}")
    if result.interrupted:
        watch.say("interrupted; the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED)
    watch.say(f"next: hilum train {result.folder / BEST}{_same_options(chosen, data)}")


def _same_options(chosen: RecipeOptions, data: TrainingDataOptions) -> str:
    """Return the options by which `hilum train` reads the same data with the same engine."""
    given = {
        "--data": data.source,
        "--labels": data.labels,
        "--images": data.images,
        "--as": data.layout,
        "--engine": chosen.engine if chosen.engine != "torch" else None,
        "--remap": data.remap,
    }
    renamed = "".join(f" --rename {shlex.quote(pair)}" for pair in data.rename or ())
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value) + renamed
