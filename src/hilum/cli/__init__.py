"""The command line: one function a command, thin over the library, which is imported inside."""

from typing import Annotated

import typer

from hilum import __version__
from hilum.cli import bundle, data, evaluate, predict, runs, train, tune
from hilum.cli.group import Group
from hilum.cli.options import argument

app = typer.Typer(
    name="hilum",
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading what draws boxes would double the time to answer
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of chest radiographs to a classifier that can be trusted. Research use only.",
    epilog="Start with: hilum demo -o runs/demo.  Any command takes --debug for the full traceback of an error.  "
    "Exit status: 0 done; 1 the data, a bundle or a training failed a check; 2 the command line or recipe is wrong; "
    "130 stopped by Ctrl-C, 143 by SIGTERM.",
)
app.add_typer(data.app, name="data")
app.add_typer(bundle.app, name="bundle")


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


app.command(epilog="Example: hilum demo -o runs/demo")(train.demo)
app.command(
    epilog="Examples: hilum train --data FOLDER        (one's own data, a recipe is chosen);  "
    "hilum train kermany-densenet121 --data chest_xray -o runs/k --set train.epochs=5",
)(train.train)
app.command(
    epilog="Example: hilum crossval kermany-densenet121 --data chest_xray -o runs/cv --folds 5",
)(train.crossval)
app.command(
    epilog="Examples: hilum evaluate runs/k        (the test split of the run's own data);  "
    "hilum evaluate runs/k --data SITE        (an external test, beside the own one)"
)(evaluate.evaluate)
app.command(
    epilog="Example: hilum score theirs.csv --labels Data_Entry_2017_v2020.csv -o scored --allow-missing"
)(evaluate.score)
app.command(epilog="Example: hilum predict runs/k patient.dcm folder/ -o predictions.csv")(predict.predict)
app.command(epilog="Example: hilum explain runs/k patient.dcm -o maps")(predict.explain)
app.command(
    epilog="Example: hilum tune kermany-densenet121 --data chest_xray --vary train.learning_rate=1e-5,1e-4,1e-3"
)(tune.tune)
app.command(epilog="Example: hilum runs runs --sort val_auroc")(runs.runs)
app.command(epilog="Example: hilum compare runs/torch runs/keras -o compared")(runs.compare)


@app.command(epilog="Example: hilum recipes kermany-densenet121 > my.toml")
def recipes(
    name: Annotated[str | None, argument(help="A recipe to print.")] = None,
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List the networks that a recipe can name, instead.")
    ] = False,
    keys: Annotated[
        bool,
        typer.Option("--keys", help="List every key, what it takes, its default and what it does, instead."),
    ] = False,
) -> None:
    """List the shipped recipes, or print one with every key."""
    import tomllib

    from hilum.cli.terminal import show
    from hilum.recipe import describe_keys, general_recipes, load_recipe, shipped_recipes, shipped_text
    from hilum.recipe.architectures import ARCHITECTURES

    if architectures:
        rows = [[a.name, ", ".join(a.engines), str(a.input_size), a.paper] for a in ARCHITECTURES.values()]
        show(rows, header=["architecture", "engines", "size", "what it is"], right=(2,))
    elif keys:
        typer.echo(describe_keys(), nl=False)
    elif name is None:
        names = (*shipped_recipes(), *general_recipes())
        show(
            [[n, tomllib.loads(shipped_text(n))["description"]] for n in names],
            header=["recipe", "what it trains"],
        )
    elif name in general_recipes():
        typer.echo(shipped_text(name), nl=False)
    else:
        typer.echo(load_recipe(name).to_toml(), nl=False)
