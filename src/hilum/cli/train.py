"""`hilum demo`, `train` and `crossval`: from a recipe and data to sealed models."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hilum.cli.data import check_source, read_table
from hilum.cli.evaluate import evaluate_model, show_report
from hilum.cli.options import (
    AllowLeakOption,
    EngineName,
    EngineOption,
    ImagesOption,
    JsonOption,
    LayoutOption,
    RemapOption,
    SetOption,
    SourceOption,
    check_file,
)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")] = Path("runs/demo"),
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")] = False,
) -> None:
    """Go the whole way on synthetic radiographs.

    Draws them, trains a small network, seals it and writes its report: some minutes, and no data needed.
    """
    from hilum.runs.folder import RunFolder

    run = _train("demo", output, engine=engine, changes=changes, resume=resume)
    evaluate_model(run.folder, None, split="test", output=RunFolder(run.folder).evaluation, as_json=False)


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (hilum recipes) or a TOML file.")],
    data: SourceOption = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o", "--output", help="The run's folder; runs/RECIPE if not given.", show_default=False
        ),
    ] = None,
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")] = False,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    track: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--track",
            metavar="NAME",
            help="Also tell each epoch to tensorboard or mlflow; may be repeated.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="How many processes share each batch, one a GPU.")
    ] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell at the end how many seconds each part of training took.")
    ] = False,
    allow_leak: AllowLeakOption = False,
    saved_model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--saved-model",
            help="With --engine keras: also write the model here (.keras), for plain keras.models.load_model.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model and seal it into a bundle.

    Ctrl-C after the first epoch keeps the best epoch so far; --resume goes on after anything else.
    """
    from hilum.training import tracking

    tracking.check(track or ())
    check_source(data)
    if saved_model:
        _check_saved_model(saved_model, engine)
    run = _train(
        recipe,
        output or Path("runs") / Path(recipe).stem,
        partial(read_table, data, layout=layout, images=images, remap=remap) if data else None,
        engine=engine,
        changes=changes,
        resume=resume,
        track=track or (),
        devices=devices,
        profile=profile,
        allow_leak=allow_leak,
    )
    if saved_model:
        from hilum import files

        files.write_bytes(saved_model, (run.bundle.folder / "weights" / "model.keras").read_bytes())
        typer.echo(f"saved model: {saved_model}", err=True)
    if profile:
        _show_profile(run.profile)
    typer.echo(f"next: hilum evaluate {run.folder}", err=True)


def crossval(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (hilum recipes) or a TOML file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The cross-validation's folder.", show_default=False)
    ],
    data: SourceOption = None,
    folds: Annotated[
        int, typer.Option("--folds", min=2, max=100, help="How many parts the patients are dealt into.")
    ] = 5,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=1, help="How often the folds are drawn anew, each with the next seed."),
    ] = 1,
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    allow_leak: AllowLeakOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cross-validate a recipe: a model a fold, and their ensemble.

    Every image is scored by the model that never saw its patient.

    The same command again goes on where it stood. A test that the source has of its own (split.method folders, official
    or list) is in no fold and stays untouched; hilum evaluate DIR/ensemble reads it.
    """
    from hilum import files
    from hilum.cli.terminal import Terminal
    from hilum.report.evaluation import tables
    from hilum.training import train as training
    from hilum.training.crossval import check, cross_validate, folder_of

    settings, watch = load_watched(recipe, changes, needs_data=not data)
    check_source(data)
    found = check(settings, output, folds=folds, repeats=repeats, engine=engine.value)
    if data:
        table = read_table(data, layout=layout, images=images, remap=remap)
    else:
        table = training.draw_phantoms(settings, watch)
    result = cross_validate(
        settings,
        table,
        output,
        folds=folds,
        repeats=repeats,
        engine=found,
        allow_leak=allow_leak,
        watch=watch,
    )
    for number, one in enumerate(result.evaluations, start=1):
        with files.replacing(folder_of(output, number, repeats=repeats) / "predictions.parquet") as temporary:
            tables.predictions(one).to_parquet(temporary, index=False)
    show_report(result.evaluation, output / "evaluation", Terminal(), as_json=as_json)
    if not as_json:
        _show_folds(result.evaluation.folds)
    typer.echo(f"ensemble: {result.ensemble.folder} ({result.ensemble.hash[:16]})", err=True)
    if result.ensemble.manifest.training.split_method != "patient":
        typer.echo(f"next, once: hilum evaluate {output / 'ensemble'}", err=True)


def _train(
    recipe_name: str,
    folder: Path,
    read: Callable[[], Any] | None = None,
    *,
    engine: EngineName,
    changes: list[str] | None,
    resume: bool,
    track: Sequence[str] = (),
    devices: int = 1,
    profile: bool = False,
    allow_leak: bool = False,
) -> Any:
    from hilum.cli.terminal import RESEARCH
    from hilum.runs.folder import RunFolder

    recipe, watch = load_watched(recipe_name, changes, needs_data=read is None)
    from hilum.training import train as training

    found = training.check(recipe, folder, engine=engine.value, resume=resume, devices=devices)
    run = training.train(
        recipe,
        read() if read else training.draw_phantoms(recipe, watch),
        folder,
        engine=found,
        resume=resume,
        track=track,
        devices=devices,
        profile=profile,
        allow_leak=allow_leak,
        watch=watch,
    )
    ended = {
        "epochs": "all epochs done",
        "patience": "no better epoch for a while",
        "interrupted": "interrupted",
    }
    for note in run.bundle.manifest.temperature_notes:
        watch.say(f"note: {note}; {RunFolder(folder).log} says which")
    watch.say(
        f"{ended[run.stopped]}; best epoch {run.best_epoch} of {len(run.history)}; "
        f"bundle {run.bundle.folder} ({run.bundle.hash[:16]}). {RESEARCH}"
    )
    return run


def load_watched(name: str, changes: list[str] | None, *, needs_data: bool) -> tuple[Any, Any]:
    """The recipe, which draws its own phantoms where no data are given, and who watches."""
    from hilum.cli.terminal import Terminal
    from hilum.errors import UsageError
    from hilum.recipe import load_recipe

    recipe = load_recipe(name, changes or ())
    if needs_data and not recipe.data.phantoms:
        raise UsageError(f"recipe {recipe.name} needs --data: a data set's folder, CSV file or table")
    return recipe, Terminal()


def _show_folds(folds: Any) -> None:
    """Shows how folds and repeats differ."""
    from hilum.cli.terminal import show
    from hilum.report.evaluation import fold_section as told

    grid = told.table(folds)
    show(
        [
            [name, *(f"{cell.value} ({cell.interval})" if cell.interval else cell.value for cell in cells)]
            for name, cells in grid.rows
        ],
        header=[grid.corner.lower(), *(column.name for column in grid.columns)],
        right=range(1, 1 + len(grid.columns)),
    )


def _check_saved_model(path: Path, engine: EngineName) -> None:
    """Refuses, before any work, what `--saved-model` cannot do."""
    from hilum.errors import UsageError

    if engine is not EngineName.keras:
        raise UsageError(
            f"--saved-model writes a .keras file, which --engine {engine.value} does not have: give --engine keras, "
            "or take weights/model.safetensors out of the bundle"
        )
    if path.suffix != ".keras":
        raise UsageError(f"--saved-model {path} should be a file that ends in .keras")
    check_file(path, option="--saved-model")


def _show_profile(profile: Mapping[str, float]) -> None:
    """Shows the seconds of training by part, with their share."""
    from hilum.cli.terminal import show

    total = sum(profile.values()) or 1.0
    rows = [
        [part, f"{seconds:,.1f}", f"{100 * seconds / total:.0f} %"]
        for part, seconds in profile.items()
        if seconds
    ]
    show(rows, header=["part", "seconds", "share"], right=(1, 2))
