"""`hilum predict` and `explain`: what a bundle says of images, and where it looks."""

from contextlib import nullcontext
from dataclasses import replace
from math import isnan
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Optional, Self

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
        typer.Argument(
            help="Image files (PNG, JPEG, TIFF, BMP, WebP, DICOM), folders of them, or ARCHIVE.zip::MEMBER."
        ),
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
    from hilum.inference.prediction import UNREADABLE, to_dict, to_frame, write
    from hilum.inference.predictor import Predictor, find_images

    if output is not None and output.suffix not in (".csv", ".json"):
        raise UsageError(f"predictions are written to .csv or .json files, not {output.name!r}")
    if output is not None:
        check_file(output, read=paths)
    if maps is not None:
        check_folder(maps, option="--maps")
    found = find_images(paths)
    predictor = Predictor.load(model, expect=expect)
    watch = Terminal()
    with _Maps(predictor, maps, found) if maps else nullcontext() as drawn:
        results = _predict(predictor, found, drawn)
        unreadable = sum(bool(result.error) for result in results)
        watch.finish(
            f"{count(len(results) - unreadable, 'image')} predicted, {unreadable:,} could not be read. {RESEARCH}"
        )
        _say_recalibrated(predictor)
        if output is not None:
            write(output, predictor, results)
            watch.say(f"written: {output}")
        if drawn:
            drawn.draw()
    if as_json:
        show_json(to_dict(predictor, results))
    elif output is None:
        frame = to_frame(predictor, results)
        readable = frame[frame["decision"] != UNREADABLE]
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
        typer.Argument(
            help="Image files (PNG, JPEG, TIFF, BMP, WebP, DICOM), folders of them, or ARCHIVE.zip::MEMBER."
        ),
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
    all pictures of a command. A picture that is there already is never replaced.
    """
    from hilum.inference.explanation import choose_findings
    from hilum.inference.predictor import Predictor, find_images

    check_folder(output)
    found = find_images(paths)
    predictor = Predictor.load(model, expect=expect)
    with _Maps(predictor, output, found, choose_findings(predictor.manifest, finding)) as drawn:
        results = _predict(predictor, found, drawn)
        _say_recalibrated(predictor)
        _say_warnings(results)
        drawn.draw()
    if any(result.error for result in results):
        raise typer.Exit(1)


class _Maps:
    """Pictures of maps, all on one scale, which is known when the last image was predicted.

    Until then the small maps stay in memory and the pictures to draw on lie one after the other in a file without a
    name, which is gone however the command ends.
    """

    def __init__(
        self, predictor: Any, folder: Path, images: list[Any], findings: tuple[str, ...] | None = None
    ) -> None:
        from hilum.report.drawing import map_files

        self._predictor, self._folder = predictor, folder
        self._findings = findings or predictor.manifest.findings
        self._files = map_files.plan(folder, map(str, images), self._findings)
        self._kept: list[tuple[Any, tuple[Path, ...]]] = []
        self._limit = 0.0

    def __enter__(self) -> Self:
        self._pictures = TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._pictures.close()

    def keep(self, number: int, prediction: Any) -> Any:
        """Keep of the image with this number what is drawn later, and return the prediction without it."""
        import numpy as np

        from hilum.inference.explanation import make_cases
        from hilum.report.drawing.maps import scale_limit

        cases = make_cases(self._predictor.manifest, prediction, self._findings)
        self._limit = max(self._limit, scale_limit(cases))
        np.save(self._pictures, prediction.picture)
        self._kept.append((replace(prediction, picture=None), self._files[number]))
        return replace(prediction, picture=None, maps=None)

    def draw(self) -> None:
        """Write a picture an image and finding."""
        import numpy as np

        from hilum.cli.terminal import Terminal
        from hilum.inference.explanation import make_cases
        from hilum.report.drawing import map_files

        watch = Terminal()
        several = len(self._kept) > 1
        limit = self._limit if several else None
        shared = f"all {count(len(self._kept), 'image')} of this command" if several else ""
        watch.stage("Explaining", len(self._kept))
        self._pictures.seek(0)
        for done, (prediction, paths) in enumerate(self._kept, start=1):
            whole = replace(prediction, picture=np.load(self._pictures))
            cases = make_cases(self._predictor.manifest, whole, self._findings)
            map_files.write(paths, cases, bundle=self._predictor.bundle.hash, limit=limit, shared=shared)
            watch.advance(done)
        scale = f", on one scale of ±{limit:g} logit units" if limit else ""
        written = len(self._kept) * len(self._findings)
        watch.finish(f"{count(written, 'picture')} written to {self._folder}{scale}")


def _predict(predictor: Any, sources: list[Any], drawn: _Maps | None) -> list[Any]:
    """Predict images once, and keep what is drawn of them."""
    from hilum.cli.terminal import Terminal

    watch = Terminal()
    watch.stage("Predicting", len(sources))
    results: list[Any] = []
    for prediction in predictor.predict(sources, maps=drawn is not None):
        whole = drawn and not prediction.error
        results.append(drawn.keep(len(results), prediction) if drawn and whole else prediction)
        watch.advance(len(results))
    watch.finish()
    return results


def _say_warnings(results: list[Any]) -> None:
    """Print why files could not be read, and what a reader of the others must know."""
    from hilum.cli.terminal import Terminal
    from hilum.inference.prediction import common_warnings

    watch = Terminal()
    for result in results:
        if result.error:
            watch.say(f"{result.image}: {result.error}")
    for line in common_warnings(results):
        watch.say(line)


def _say_recalibrated(predictor: Any) -> None:
    """Print of a recalibrated bundle on what it was calibrated."""
    from hilum.cli.terminal import Terminal

    recalibrated = predictor.manifest.recalibrated
    if recalibrated:
        watch = Terminal()
        watch.say(f"the bundle was {recalibrated.summary}")
        for caution in recalibrated.cautions:
            watch.say(f"warning: there, {caution}")
