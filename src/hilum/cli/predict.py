"""`hilum predict` and `explain`: what a bundle says of images, and where it looks."""

from math import isnan
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hilum.cli.options import (
    BundleArgument,
    ExpectOption,
    JsonOption,
    check_file,
    check_folder,
)
from hilum.progress import count


def predict(
    model: BundleArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Image files (PNG, JPEG, TIFF, DICOM), folders of them, or ARCHIVE.zip::MEMBER."),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o", "--output", help="Write a .csv or .json file instead of a table here.", show_default=False
        ),
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
    """Tell what a model sees in radiographs.

    Probability and decision for each image and finding. Exit status 1 if a file could not be read.
    """
    from hilum.cli.terminal import RESEARCH, Terminal, show, show_json
    from hilum.errors import UsageError
    from hilum.inference import predictor as prediction, runtime

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


def explain(
    model: BundleArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Image files (PNG, JPEG, TIFF, DICOM), folders of them, or ARCHIVE.zip::MEMBER."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the pictures.")] = Path(
        "maps"
    ),
    finding: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--finding", metavar="NAME", help="Only this finding; may be repeated.", show_default=False
        ),
    ] = None,
    expect: ExpectOption = None,
) -> None:
    """Draw where a model sees a finding.

    A PNG an image and finding: the radiograph, the radiograph under its map, the map with its scale, which is one for
    all pictures of a command.
    """
    from hilum.inference import explanation as explanation, predictor as prediction, runtime

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


def _say_warnings(results: list[Any]) -> None:
    """Prints why files could not be read, and what a reader of the others must know."""
    from hilum.cli.terminal import Terminal
    from hilum.inference import predictor as prediction

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
        watch = Terminal()
        watch.say(f"the bundle was {model.bundle.manifest.recalibrated.summary}")
        for caution in model.bundle.manifest.recalibrated.cautions:
            watch.say(f"warning: there, {caution}")


def _write_panels(
    model: Any, sources: list[Any], folder: Path, findings: tuple[str, ...] | None = None
) -> None:
    """Writes a picture an image and finding, all on one scale; every image can be read."""
    from hilum.cli.terminal import Terminal
    from hilum.inference import explanation as explanation
    from hilum.report.drawing import map_files, maps

    watch = Terminal()
    limit, shared = None, ""
    if len(sources) > 1:
        # Twice through the images: kept in memory, the maps of a thousand would not fit.
        watch.stage("Finding the scale", len(sources))
        limit = 0.0
        for number, source in enumerate(sources, start=1):
            limit = max(limit, maps.scale_limit(explanation.explain(model, source, findings=findings)))
            watch.advance(number)
        shared = f"all {count(len(sources), 'image')} of this command"
    watch.stage("Explaining", len(sources))
    written = 0
    names = map_files.names([str(source) for source in sources])
    for number, (source, name) in enumerate(zip(sources, names, strict=True), start=1):
        cases = explanation.explain(model, source, findings=findings)
        written += len(
            map_files.write(folder, cases, name=name, bundle=model.bundle.hash, limit=limit, shared=shared)
        )
        watch.advance(number)
    scale = f", on one scale of ±{limit:g} logit units" if limit else ""
    watch.finish(f"{count(written, 'picture')} written to {folder}{scale}")
