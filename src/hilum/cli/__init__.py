"""The command line: one function a command, thin over the library, which is imported inside."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hilum import __version__
from hilum.cli import (
    bundle as bundle_commands,
    data as data_commands,
    runs as runs_command,
    tune as tune_command,
)
from hilum.cli.data import read_table
from hilum.cli.group import Group
from hilum.cli.options import (
    BundleArgument,
    EngineName,
    EngineOption,
    ExpectOption,
    HowName,
    ImagesOption,
    JsonOption,
    LayoutOption,
    LevelName,
    RemapOption,
    SetOption,
    SourceOption,
    check_file,
    check_folder,
    check_report,
)
from hilum.progress import count

app = typer.Typer(
    name="hilum",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading what draws boxes would double the time to answer
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of chest radiographs to a classifier that can be trusted. Research use only.",
    epilog="Start with: hilum demo -o runs/demo.  Any command takes --debug for the full traceback of an error.",
)
app.add_typer(data_commands.app, name="data")
app.add_typer(bundle_commands.app, name="bundle")


# What the terminal shows of one finding: its name there -> in metrics.json.
HEADLINES = {
    "AUROC": "auroc",
    "average precision": "average_precision",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "PPV": "ppv",
    "NPV": "npv",
    "F1": "f1",
    "ECE": "ece",
}


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"hilum {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(epilog="Example: hilum demo -o runs/demo")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder.")] = Path("runs/demo"),
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")] = False,
) -> None:
    """Go the whole way on synthetic radiographs."""
    run = _train("demo", output, engine=engine, changes=changes, resume=resume)
    _evaluate(run.folder, None, split="test", output=run.folder / "evaluation", as_json=False)


@app.command(
    epilog="Example: hilum train kermany-densenet121 --data chest_xray -o runs/k --set train.epochs=5",
)
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
            help="Also tell each epoch to tensorboard or mlflow; may be repeated.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes that share each batch.")] = 1,
    profile: Annotated[bool, typer.Option("--profile", help="Tell where the time went.")] = False,
    allow_leak: Annotated[
        bool,
        typer.Option(
            "--allow-leak", help="Train though patients or pictures stand in two parts; reports say so."
        ),
    ] = False,
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


@app.command(
    epilog="Example: hilum crossval kermany-densenet121 --data chest_xray -o runs/cv --folds 5",
)
def crossval(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (hilum recipes) or a TOML file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The cross-validation's folder.", show_default=False)
    ],
    data: SourceOption = None,
    folds: Annotated[int, typer.Option("--folds", min=2, max=100, help="How many parts, by patient.")] = 5,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often they are drawn anew.")] = 1,
    engine: EngineOption = EngineName.torch,
    changes: SetOption = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model a fold, score every image by the model that never saw its patient, and seal the ensemble.

    The same command again goes on where it stood. A test that the source has of its own (split.method folders, official
    or list) is in no fold and stays untouched; hilum evaluate DIR/ensemble reads it.
    """
    from hilum import files
    from hilum.cli.terminal import Terminal
    from hilum.report import tables
    from hilum.training import train as training
    from hilum.training.crossval import cross_validate, folder_of

    check_folder(output)
    settings, watch = _recipe(recipe, changes, needs_data=not data)
    if data:
        table = read_table(data, layout=layout, images=images, remap=remap)
    else:
        table = training.draw_phantoms(settings, watch)
    result = cross_validate(
        settings, table, output, folds=folds, repeats=repeats, engine=engine.value, watch=watch
    )
    for number, one in enumerate(result.evaluations, start=1):
        with files.replacing(folder_of(output, number, repeats=repeats) / "predictions.parquet") as temporary:
            tables.predictions(one).to_parquet(temporary, index=False)
    _report(result.evaluation, output / "evaluation", Terminal(), as_json=as_json)
    if not as_json:
        _show_folds(result.evaluation.folds)
    typer.echo(f"ensemble: {result.ensemble.folder} ({result.ensemble.hash[:16]})", err=True)
    if result.ensemble.manifest.training.split_method != "patient":
        typer.echo(f"next, once: hilum evaluate {output / 'ensemble'}", err=True)


@app.command(
    epilog="Examples: hilum evaluate runs/k        (the test split of the run's own data);  "
    "hilum evaluate runs/k --data SITE        (an external test, beside the own one)"
)
def evaluate(
    model: BundleArgument,
    data: SourceOption = None,
    split: Annotated[
        str, typer.Option("--split", help="train, val, test, or all; data from elsewhere has no test: all.")
    ] = "test",
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o",
            "--output",
            help="The folder for the report; if not given RUN/evaluation, of other parts RUN/evaluation-PART, of other "
            "data RUN/external/NAME.",
            show_default=False,
        ),
    ] = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    remap: RemapOption = None,
    internal: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--internal",
            help="With --data: the report of the model's own test, to compare with; RUN/evaluation if not given.",
            show_default=False,
        ),
    ] = None,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model and write the report.

    On data from elsewhere (--data): what is common is scored, what the model has not seen is named, and the figures
    stand beside those of its own test, with the interval of the difference.
    """
    from hilum import bundle, evaluate as evaluation, external
    from hilum.errors import UsageError

    if internal and not data:
        raise UsageError("--internal names the own test to compare other data with; give those with --data")
    evaluation.check_split(split)
    if output:
        check_report(output, own_test=split == "test")
    if data:  # before they are read
        bundle.read(model, expect=expect)
        if internal:
            external.report_of(internal)
    table = read_table(data, layout=layout, images=images, remap=remap) if data else None
    _evaluate(
        model,
        table,
        split=split,
        output=output,
        as_json=as_json,
        expect=expect,
        images=images,
        internal=internal,
    )


@app.command(
    epilog="Example: hilum score theirs.csv --labels Data_Entry_2017_v2020.csv -o scored --allow-missing"
)
def score(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="A .csv or .parquet file: image and a column a finding, or image, finding, probability; "
            "of several the mean is scored."
        ),
    ],
    labels: Annotated[
        Path, typer.Option("--labels", help="A data set's folder, its CSV file, or a table (.parquet).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the report.")] = Path(
        "scored"
    ),
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Present is called from here on.")
    ] = 0.5,
    level: Annotated[
        LevelName, typer.Option("--level", help="Score images, or studies or patients as a whole.")
    ] = (LevelName.image),
    how: Annotated[HowName, typer.Option("--join", help="How a study's or patient's images are joined.")] = (
        HowName.maximum
    ),
    prevalence: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--prevalence", help="Tell predictive values at this prevalence too.", show_default=False
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="A part of the labels' own split, or all.")] = "all",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what is on both sides even if some images are not.")
    ] = False,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score anybody's predictions against labels.

    The same statistics and report as evaluate, for the probabilities of any system.
    """
    from hilum import score as scoring
    from hilum.cli.terminal import Terminal

    check_report(output, own_test=False)
    found = scoring.mean([scoring.read(path) for path in predictions])
    table = read_table(labels, layout=layout, images=images, remap=None)
    watch = Terminal()
    watch.stage("Scoring")
    result = scoring.score(
        found,
        table,
        threshold=threshold,
        level=level.value,
        how=how.value,
        prevalence=prevalence,
        allow_missing=allow_missing,
        split=split,
    )
    _report(result, output, watch, as_json=as_json)


@app.command(epilog="Example: hilum predict runs/k patient.dcm folder/ -o predictions.csv")
def predict(
    model: BundleArgument,
    paths: Annotated[list[Path], typer.Argument(help="Image files, folders of them, ARCHIVE.zip::MEMBER.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="A .csv or .json file.", show_default=False),
    ] = None,
    maps: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--maps", help="A folder for pictures of the maps, as hilum explain makes.", show_default=False
        ),
    ] = None,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a model sees in radiographs. Exit status 1 if a file could not be read."""
    from hilum import predict as prediction, runtime
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.errors import UsageError

    if output is not None and output.suffix not in (".csv", ".json"):
        raise UsageError(f"predictions are written to .csv or .json files, not {output.name!r}")
    if output is not None:
        check_file(output, read=paths)
    if maps is not None:
        check_folder(maps, option="--maps")
    found = prediction.find_images(paths)
    loaded = runtime.load(model, expect=expect)
    watch = Terminal()
    watch.stage("Predicting", len(found))
    results = prediction.predict(loaded, found, on_progress=watch.advance)
    unreadable = sum(bool(result.error) for result in results)
    watch.finish(
        f"{count(len(results) - unreadable, 'image')} predicted, {unreadable:,} could not be read. {RESEARCH}"
    )
    _say_recalibrated(loaded)
    if output is not None:
        prediction.write(output, loaded, results)
        watch.say(f"written: {output}")
    if maps is not None:
        _write_panels(
            loaded,
            [location for location, result in zip(found, results, strict=True) if not result.error],
            maps,
        )
    if as_json:
        show_json(prediction.to_dict(loaded, results))
    elif output is None:
        frame = prediction.to_frame(loaded, results)
        readable = frame[frame["decision"] != prediction.UNREADABLE]
        show(
            [
                [
                    row.image,
                    row.finding,
                    f"{row.probability:.3f}",
                    "" if isnan(row.threshold) else f"{row.threshold:.3f}",
                    row.decision,
                ]
                for row in readable.itertuples()
            ],
            header=["image", "finding", "probability", "threshold", "decision"],
            right=(2, 3),
        )
    _say_warnings(results)
    if unreadable:
        raise typer.Exit(1)


@app.command(epilog="Example: hilum explain runs/k patient.dcm -o maps")
def explain(
    model: BundleArgument,
    paths: Annotated[list[Path], typer.Argument(help="Image files, folders of them, ARCHIVE.zip::MEMBER.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the pictures.")] = Path(
        "maps"
    ),
    finding: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--finding", help="Only this finding; may be repeated.", show_default=False),
    ] = None,
    expect: ExpectOption = None,
) -> None:
    """Draw where a model sees a finding.

    A PNG an image and finding: the radiograph, the radiograph under its map, the map with its scale.
    """
    from hilum import explain as explanation, predict as prediction, runtime

    check_folder(output)
    found = prediction.find_images(paths)
    loaded = runtime.load(model, expect=expect)
    wanted = explanation.choose(loaded, finding)
    results = prediction.predict(loaded, found)
    _say_recalibrated(loaded)
    _say_warnings(results)
    readable = [location for location, result in zip(found, results, strict=True) if not result.error]
    _write_panels(loaded, readable, output, wanted)
    if len(readable) < len(found):
        raise typer.Exit(1)


app.command(
    epilog="Example: hilum tune kermany-densenet121 --data chest_xray --vary train.learning_rate=1e-5,1e-4,1e-3"
)(tune_command.tune)
app.command(epilog="Example: hilum runs runs --sort val_auroc")(runs_command.runs)
app.command(epilog="Example: hilum compare runs/torch runs/keras -o compared")(runs_command.compare)


@app.command(epilog="Example: hilum recipes kermany-densenet121 > my.toml")
def recipes(
    name: Annotated[Optional[str], typer.Argument(help="A recipe to print.", show_default=False)] = None,  # noqa: UP045
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List the backbones instead.")
    ] = False,
    keys: Annotated[bool, typer.Option("--keys", help="List what a recipe may say instead.")] = False,
) -> None:
    """List the shipped recipes, or print one with every key."""
    from hilum import recipe
    from hilum.architectures import ARCHITECTURES
    from hilum.cli.terminal import show

    if architectures:
        rows = [[a.name, ", ".join(a.engines), str(a.input_size), a.paper] for a in ARCHITECTURES.values()]
        show(rows, header=["architecture", "engines", "size", "what it is"], right=(2,))
    elif keys:
        typer.echo(recipe.describe_keys(), nl=False)
    elif name is None:
        show([[n, recipe.load(n).description] for n in recipe.shipped()], header=["recipe", "what it trains"])
    else:
        typer.echo(recipe.load(name).to_toml(), nl=False)


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

    recipe, watch = _recipe(recipe_name, changes, needs_data=read is None)
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
    watch.say(
        f"{ended[run.stopped]}; best epoch {run.best_epoch} of {len(run.history)}; "
        f"bundle {run.bundle.folder} ({run.bundle.hash[:16]}). {RESEARCH}"
    )
    return run


def _recipe(name: str, changes: list[str] | None, *, needs_data: bool) -> tuple[Any, Any]:
    """The recipe, which draws its own phantoms where no data are given, and who watches."""
    from hilum import recipe as recipes
    from hilum.cli.terminal import Terminal
    from hilum.errors import UsageError

    recipe = recipes.load(name, changes or ())
    if needs_data and not recipe.data.phantoms:
        raise UsageError(f"recipe {recipe.name} needs --data: a data set's folder, CSV file or table")
    return recipe, Terminal()


def _show_folds(folds: Any) -> None:
    """Shows how folds and repeats differ."""
    from hilum.cli.terminal import show
    from hilum.report import folds as told

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


def _evaluate(
    model: Path,
    table: Any,
    *,
    split: str,
    output: Path | None,
    as_json: bool,
    expect: str | None = None,
    images: Path | None = None,
    internal: Path | None = None,
) -> None:
    from hilum import evaluate as evaluation
    from hilum.cli.terminal import Terminal

    watch = Terminal()
    subject = evaluation.subject(model, table, expect=expect, images=images, internal=internal)
    if output is None and table is None:
        check_report(subject.output(split=split), own_test=split == "test")
    result = evaluation.evaluate(subject, split=split, watch=watch)
    folder = output or subject.output(result)
    check_report(folder, own_test=result.split == "test" and result.external is None)
    _report(result, folder, watch, as_json=as_json)


def _report(result: Any, folder: Path, watch: Any, *, as_json: bool) -> None:
    """Writes the report of an Evaluation and shows its figures."""
    from hilum.cli.terminal import RESEARCH, show, show_json, show_pairs
    from hilum.report import page, words

    watch.stage("Writing the report")
    report = page.write(folder, result)
    watch.finish()
    if as_json:
        show_json(result.metrics)
        return
    for warning in result.warnings:
        watch.say(f"warning: {warning}")
    entries = list(result.metrics["findings"].items())
    if len(entries) == 1:
        finding, scores = entries[0]
        pairs = {"finding": finding, "threshold": f"{scores['threshold']:.3f} ({result.threshold_rule})"}
        pairs |= {label: words.estimate(scores.get(name)) for label, name in HEADLINES.items()}
        show_pairs(pairs)
    else:
        entries.append(("macro mean", result.metrics["macro"]))
        noun = "finding"
        told: tuple[str, ...] = ("AUROC", "average precision")
        if result.task == "multiclass":
            noun, told = "class", ("AUROC", "sensitivity", "PPV")
            show_pairs({"accuracy": f"{words.estimate(result.metrics['accuracy'])}, {result.threshold_rule}"})
        show(
            [
                [
                    finding,
                    str(scores.get("positives", "")),
                    *(words.estimate(scores.get(HEADLINES[label])) for label in told),
                ]
                for finding, scores in entries
            ],
            header=[noun, "positives", *(f"{label} (95 %)" for label in told)],
            right=range(1, 2 + len(told)),
        )
    if result.external and result.external.contrasts:
        show(
            [
                [name, words.NAMES[metric], *map(words.estimate, one.to_dict().values())]
                for name, row in result.external.contrasts.items()
                for metric, one in row.items()
            ],
            header=["", "figure", "own test", "here", "difference (95 %)"],
            right=(2, 3, 4),
        )
    for finding, scores in result.metrics["findings"].items():
        if scores["auroc"].get("reason"):
            watch.say(f"{finding}: AUROC {scores['auroc']['reason']}")
    where = words.part(result.split)
    watch.say(
        f"{result.data}, {where}: {count(len(result.images), 'image')} of "
        f"{count(len(set(result.patients)), 'patient')}. {RESEARCH}"
    )
    typer.echo(f"report: {report}")


def _say_warnings(results: list[Any]) -> None:
    """Prints why files could not be read, and what a reader of the others must know."""
    from hilum import predict as prediction
    from hilum.cli.terminal import Terminal

    watch = Terminal()
    for result in results:
        if result.error:
            watch.say(f"{result.image}: {result.error}")
    for line in prediction.common_warnings(results):
        watch.say(line)


def _say_recalibrated(model: Any) -> None:
    """Says of a recalibrated bundle on what."""
    from hilum.cli.terminal import Terminal

    if model.bundle.manifest.recalibrated:
        Terminal().say(f"the bundle was {model.bundle.manifest.recalibrated.summary}")


def _write_panels(
    model: Any, sources: list[Any], folder: Path, findings: tuple[str, ...] | None = None
) -> None:
    """Writes a picture an image and finding; every image can be read."""
    from hilum import explain as explanation
    from hilum.cli.terminal import Terminal
    from hilum.report import pictures

    watch = Terminal()
    watch.stage("Explaining", len(sources))
    written = 0
    names = pictures.names([str(source) for source in sources])
    for number, (source, name) in enumerate(zip(sources, names, strict=True), start=1):
        cases = explanation.explain(model, source, findings=findings)
        written += len(pictures.write(folder, cases, name=name, bundle=model.bundle.hash))
        watch.advance(number)
    watch.finish(f"{count(written, 'picture')} written to {folder}")
