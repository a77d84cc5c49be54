"""`hilum bundle`: sealed models, shown and verified."""

import typer

from hilum.cli.options import (
    BundleArgument,
    ExpectOption,
    JsonOption,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Sealed models: show and verify.")


@app.command("show", epilog="Example: hilum bundle show runs/k")
def bundle_show(model: BundleArgument, expect: ExpectOption = None, as_json: JsonOption = False) -> None:
    """Tell what a bundle is, how it was trained, and what it expects."""
    from hilum import bundle
    from hilum.cli.terminal import show, show_json, show_pairs

    found = bundle.read(model, expect=expect)
    manifest = found.manifest
    if as_json:
        show_json({"bundle": found.hash, **manifest.model_dump(mode="json")})
        return
    training, seen = manifest.training, manifest.seen
    show_pairs(
        {
            "bundle": found.hash,
            "name": manifest.name,
            "intended use": manifest.intended_use,
            "task": manifest.task,
            "input": f"{manifest.size} x {manifest.size} pixels, {manifest.fit}",
            "model": f"{training.architecture} ({training.engine}, {training.precision})",
            "initial weights": training.initial_weights,
            "trained on": f"{training.num_train:,} images of {training.num_patients:,} patients "
            f"({', '.join(seen.sources)}); validation {training.num_val:,}, test {training.num_test:,}",
            "split": training.split_description,
            "views, ages": f"{', '.join(seen.views) or 'unknown'}; "
            + (f"{seen.ages[0]:g} to {seen.ages[1]:g} years" if seen.ages else "unknown"),
            "epochs": f"{training.epochs}, best {training.best_epoch}; {training.seconds:.0f} s",
        }
    )
    calibration = manifest.calibration
    if manifest.task == "multiclass":
        row = [", ".join(manifest.findings), calibration.rule, f"{calibration.temperatures[0]:.3f}"]
        show([row], header=["classes", "called", "temperature"], right=(2,))
        return
    show(
        [
            [finding, f"{threshold:.3f}", f"{temperature:.3f}"]
            for finding, threshold, temperature in zip(
                manifest.findings, calibration.thresholds, calibration.temperatures, strict=True
            )
        ],
        header=["finding", f"threshold ({calibration.rule})", "temperature"],
        right=(1, 2),
    )


@app.command("verify", epilog="Example: hilum bundle verify runs/k --expect 3f9a12bc")
def bundle_verify(model: BundleArgument, expect: ExpectOption = None, as_json: JsonOption = False) -> None:
    """Check every file's hash, the graph, and its golden output. Exit status 1 if anything differs."""
    from hilum import runtime
    from hilum.cli.terminal import show_json

    loaded = runtime.load(model, expect=expect)
    if as_json:
        show_json({"bundle": loaded.bundle.hash, "whole": True})
    else:
        typer.echo(f"whole: bundle {loaded.bundle.hash}, golden output reproduced")
