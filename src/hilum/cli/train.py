"""`hilum demo`, `train` and `crossval`: from a recipe and data to sealed models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    "recipe source labels output dry_run engine changes resume layout images remap rename track devices profile "
    "allow_leak saved_model"
)
def train(
    chosen: RecipeOptions,
    data: TrainingDataOptions,
    output: Annotated[
        Path | None, option("-o", "--output", help="The run's folder; runs/RECIPE if not given.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the split and print the recipe (TOML), and train nothing."),
    ] = False,
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

    Without a recipe one is chosen that suits the data; it is shown, and written into the run's folder.
    Ctrl-C after the first epoch seals the best epoch so far, exit status 130; --resume goes on after that and all else.
    """
    from hilum.training import tracking

    tracking.check(track or ())
    check_source(data.source)
    check_source(data.labels)
    if saved_model:
        _check_saved_model(saved_model, chosen.engine)
    if dry_run:
        _show_plan(chosen, data)
        return
    run = _train(
        chosen,
        data,
        output,
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


@expanded(
    "recipe output source labels folds repeats engine changes layout images remap rename allow_leak as_json"
)
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

    check_source(data.source)
    recipe, table, watch = load_watched(chosen, data)
    plan = FoldPlan(folds, repeats)
    engine = check(recipe, output, plan=plan, engine=chosen.engine.value)
    result = cross_validate(
        recipe,
        table or training_table(recipe, data, watch),
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
    folder: Path | None,
    *,
    resume: bool,
    track: Sequence[str] = (),
    devices: int = 1,
    profile: bool = False,
) -> Any:
    """Train and return the Run; say how it ended."""
    from hilum.cli.terminal import RESEARCH
    from hilum.runs.folder import RunFolder

    recipe, table, watch = load_watched(chosen, data)
    folder = folder or Path("runs") / Path(chosen.recipe or recipe.name).stem
    from hilum.training.train import TrainOptions, check, train

    engine = check(recipe, folder, engine=chosen.engine.value, resume=resume, devices=devices)
    run = train(
        recipe,
        table or training_table(recipe, data, watch),
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


def load_watched(chosen: RecipeOptions, data: TrainingDataOptions) -> tuple[Any, Any, Any]:
    """Return the Recipe, the Table where it had to be read to choose the recipe (else None), and who watches.

    Raises:
        UsageError: No such recipe, or data are needed and none are given.
    """
    from hilum.cli.terminal import Terminal
    from hilum.recipe import changed_keys, general_recipes, load_recipe

    watch, changes = Terminal(), chosen.changes or ()
    general = chosen.recipe in general_recipes() and "task.findings" not in changed_keys(changes)
    if chosen.recipe and not general:
        _refuse_data_as_recipe(chosen.recipe, data)
        recipe = load_recipe(chosen.recipe, changes)
        if data.source is None and not recipe.data.phantoms:
            raise UsageError(f"recipe {recipe.name} needs --data: a data set's folder, CSV file or table")
        return recipe, None, watch
    if data.source is None:
        raise UsageError(
            "give --data: a data set's folder, CSV file or table, for which a recipe is chosen; or a recipe with it "
            "(hilum recipes)"
        )
    from hilum.training.proposal import propose

    table = _read_training_data(data)
    proposal = propose(table, kind=chosen.recipe, changes=changes)
    for reason in proposal.reasons:
        watch.say(f"chosen: {reason}")
    return proposal.recipe, table, watch


def training_table(recipe: Any, data: TrainingDataOptions, watch: Any) -> Any:
    """Return the Table of the data given, or of the phantoms that the recipe draws."""
    from hilum.training.train import draw_phantoms

    return _read_training_data(data) if data.source else draw_phantoms(recipe, watch)


def _read_training_data(data: TrainingDataOptions) -> Any:
    """Return the Table of `--data`, or of `--labels` with its images in `--data`."""
    assert data.source is not None
    if data.labels is None:
        return read_table(data.source, data)
    if not data.source.is_dir() or data.images is not None:
        raise UsageError("--labels names the CSV file of a folder of images; give that folder with --data")
    return read_table(data.labels, replace(data, images=data.source))


def _refuse_data_as_recipe(recipe: str, data: TrainingDataOptions) -> None:
    """Refuse data that stand where a recipe is expected."""
    path = Path(recipe)
    if data.source is None and (path.is_dir() or path.suffix in (".csv", ".parquet")) and path.exists():
        raise UsageError(
            f"{recipe} is data and not a recipe; give it with --data: hilum train --data {recipe}"
        )


def _show_plan(chosen: RecipeOptions, data: TrainingDataOptions) -> None:
    """Show how the data would be divided, and print the recipe."""
    from hilum.cli.terminal import RESEARCH
    from hilum.data.examples import answering
    from hilum.data.split import split

    recipe, table, watch = load_watched(chosen, data)
    table = answering(table or training_table(recipe, data, watch), recipe.task, watch=watch)
    divided = split(table, recipe.split, findings=recipe.task.findings)
    parts = divided.table.frame["split"].to_numpy(str)
    labels, patients = divided.table.labels(recipe.task.findings), divided.table.patient_keys
    inside = [parts == part for part in ("train", "val", "test")]
    rows = {
        "": ["train", "val", "test"],
        "images": [f"{int(rows.sum()):,}" for rows in inside],
        "patients": [f"{len(set(patients[rows])):,}" for rows in inside],
    }
    for column, finding in enumerate(recipe.task.findings):
        rows[finding] = [f"{int((labels[rows, column] == 1).sum()):,}" for rows in inside]
    width = max(map(len, rows))
    watch.say(f"split: {divided.description}")
    for note in divided.notes:
        watch.say(f"note: {note}")
    for name, numbers in rows.items():
        watch.say(f"{name:<{width}}" + "".join(f"{number:>9}" for number in numbers))
    watch.say(
        f"nothing was trained; the recipe, to be kept as a file (> my.toml) and changed, follows. {RESEARCH}"
    )
    typer.echo(recipe.to_toml(), nl=False)


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
