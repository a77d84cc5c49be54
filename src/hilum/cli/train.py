"""`hilum demo`, `train` and `crossval`: from a recipe and data to sealed models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.data import check_source, read_table
from hilum.cli.evaluate import evaluate_model, show_report
from hilum.cli.group import EXIT_INTERRUPTED
from hilum.cli.options import (
    EngineName,
    EngineOption,
    JsonOption,
    RecipeOptions,
    ResumeOption,
    SetOption,
    TrainingDataOptions,
    check_file,
    expanded,
    option,
)
from hilum.errors import UsageError


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")] = Path("runs/demo"),
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    resume: ResumeOption = False,
) -> None:
    """Go the whole way on synthetic radiographs.

    Draws them, trains a small network, seals it and writes its report: some minutes, and no data needed.
    """
    from hilum.runs.folder import RunFolder

    run = _train(RecipeOptions("demo", engine, changes), TrainingDataOptions(), output, resume=resume)
    evaluate_model(run.folder, None, split="test", output=RunFolder(run.folder).evaluation, as_json=False)


@expanded(
    "recipe source output engine changes resume layout images remap track devices profile allow_leak saved_model"
)
def train(
    chosen: RecipeOptions,
    data: TrainingDataOptions,
    output: Annotated[
        Path | None, option("-o", "--output", help="The run's folder; runs/RECIPE if not given.")
    ] = None,
    resume: ResumeOption = False,
    track: Annotated[
        list[str] | None,
        option(
            "--track", metavar="NAME", help="Also tell each epoch to tensorboard or mlflow; may be repeated."
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="How many processes share each batch, one a GPU.")
    ] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell at the end how many seconds each part of training took.")
    ] = False,
    saved_model: Annotated[
        Path | None,
        option(
            "--saved-model",
            help="With --engine keras: also write the model here (.keras), for plain keras.models.load_model.",
        ),
    ] = None,
) -> None:
    """Train a model and seal it into a bundle.

    Ctrl-C after the first epoch seals the best epoch so far, exit status 130; --resume goes on after that and all else.
    """
    from hilum.training import tracking

    tracking.check(track or ())
    check_source(data.source)
    if saved_model:
        _check_saved_model(saved_model, chosen.engine)
    run = _train(
        chosen,
        data,
        output or Path("runs") / Path(chosen.recipe).stem,
        resume=resume,
        track=track or (),
        devices=devices,
        profile=profile,
    )
    if saved_model:
        from hilum import files

        files.write_bytes(saved_model, (run.bundle.folder / "weights" / "model.keras").read_bytes())
        typer.echo(f"saved model: {saved_model}", err=True)
    if profile:
        _show_profile(run.profile)
    typer.echo(f"next: hilum evaluate {run.folder}", err=True)


@expanded("recipe output source folds repeats engine changes layout images remap allow_leak as_json")
def crossval(
    chosen: RecipeOptions,
    data: TrainingDataOptions,
    output: Annotated[Path, option("-o", "--output", help="The cross-validation's folder.")],
    folds: Annotated[
        int, typer.Option("--folds", min=2, max=100, help="How many parts the patients are dealt into.")
    ] = 5,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=1, help="How often the folds are drawn anew, each with the next seed."),
    ] = 1,
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
    from hilum.training.crossval import FoldPlan, check, cross_validate, folder_of

    recipe, watch = load_watched(chosen, data)
    check_source(data.source)
    plan = FoldPlan(folds, repeats)
    engine = check(recipe, output, plan=plan, engine=chosen.engine.value)
    result = cross_validate(
        recipe,
        training_table(recipe, data, watch),
        output,
        plan=plan,
        engine=engine,
        allow_leak=data.allow_leak,
        watch=watch,
    )
    for number, evaluation in enumerate(result.evaluations, start=1):
        with files.replacing(folder_of(output, number, repeats=repeats) / "predictions.parquet") as temporary:
            tables.predictions(evaluation).to_parquet(temporary, index=False)
    show_report(result.evaluation, output / "evaluation", Terminal(), as_json=as_json)
    if not as_json:
        _show_folds(result.evaluation.folds)
    typer.echo(f"ensemble: {result.ensemble.folder} ({result.ensemble.hash[:16]})", err=True)
    if result.ensemble.manifest.training.split_method != "patient":
        typer.echo(f"next, once: hilum evaluate {output / 'ensemble'}", err=True)


def _train(
    chosen: RecipeOptions,
    data: TrainingDataOptions,
    folder: Path,
    *,
    resume: bool,
    track: Sequence[str] = (),
    devices: int = 1,
    profile: bool = False,
) -> Any:
    """Train and return the Run; say how it ended."""
    from hilum.cli.terminal import RESEARCH
    from hilum.runs.folder import RunFolder

    recipe, watch = load_watched(chosen, data)
    from hilum.training.train import TrainOptions, check, train

    engine = check(recipe, folder, engine=chosen.engine.value, resume=resume, devices=devices)
    run = train(
        recipe,
        training_table(recipe, data, watch),
        folder,
        engine=engine,
        resume=resume,
        allow_leak=data.allow_leak,
        options=TrainOptions(track=track, devices=devices, profile=profile),
        watch=watch,
    )
    ended = {
        "epochs": "all epochs done",
        "patience": "no better epoch for a while",
        "interrupted": "stopped by Ctrl-C, --resume goes on",
    }
    for note in run.bundle.manifest.temperature_notes:
        watch.say(f"note: {note}; {RunFolder(folder).log} says which")
    watch.say(
        f"{ended[run.stopped]}; best epoch {run.best_epoch} of {len(run.history)}; "
        f"bundle {run.bundle.folder} ({run.bundle.hash[:16]}). {RESEARCH}"
    )
    if run.stopped == "interrupted":  # so that no script takes it for a whole training
        raise typer.Exit(EXIT_INTERRUPTED)
    return run


def load_watched(chosen: RecipeOptions, data: TrainingDataOptions) -> tuple[Any, Any]:
    """Return the Recipe and who watches; raise UsageError where it needs data and none are given."""
    from hilum.cli.terminal import Terminal
    from hilum.recipe import load_recipe

    recipe = load_recipe(chosen.recipe, chosen.changes or ())
    if data.source is None and not recipe.data.phantoms:
        raise UsageError(f"recipe {recipe.name} needs --data: a data set's folder, CSV file or table")
    return recipe, Terminal()


def training_table(recipe: Any, data: TrainingDataOptions, watch: Any) -> Any:
    """Return the Table of the data given, or of the phantoms that the recipe draws."""
    from hilum.training.train import draw_phantoms

    return read_table(data.source, data) if data.source else draw_phantoms(recipe, watch)


def _show_folds(folds: Any) -> None:
    """Show how folds and repeats differ."""
    from hilum.cli.terminal import show
    from hilum.report.evaluation.fold_section import table

    grid = table(folds)
    show(
        [
            [name, *(f"{cell.value} ({cell.interval})" if cell.interval else cell.value for cell in cells)]
            for name, cells in grid.rows
        ],
        header=[grid.corner.lower(), *(column.name for column in grid.columns)],
        right=range(1, 1 + len(grid.columns)),
    )


def _check_saved_model(path: Path, engine: EngineName) -> None:
    """Refuse, before any work, what `--saved-model` cannot do."""
    if engine is not EngineName.keras:
        raise UsageError(
            f"--saved-model writes a .keras file, which --engine {engine.value} does not have: give --engine keras, "
            "or take weights/model.safetensors out of the bundle"
        )
    if path.suffix != ".keras":
        raise UsageError(f"--saved-model {path} should be a file that ends in .keras")
    check_file(path, option="--saved-model")


def _show_profile(profile: Mapping[str, float]) -> None:
    """Show the seconds of training by part, with their share."""
    from hilum.cli.terminal import show

    total = sum(profile.values()) or 1.0
    rows = [
        [part, f"{seconds:,.1f}", f"{100 * seconds / total:.0f} %"]
        for part, seconds in profile.items()
        if seconds
    ]
    show(rows, header=["part", "seconds", "share"], right=(1, 2))
