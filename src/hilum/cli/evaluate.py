"""`hilum evaluate` and `score`: figures with intervals, on the terminal and as a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.cli.data import check_source, read_table
from hilum.cli.options import (
    BundleArgument,
    ExpectOption,
    HowName,
    ImagesOption,
    JsonOption,
    LayoutOption,
    LevelName,
    ReadingOptions,
    SourceOption,
    check_report,
    expanded,
    option,
)
from hilum.errors import UsageError
from hilum.files import check_writable
from hilum.progress import count

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


@expanded("model data split output layout images remap rename internal expect as_json")
def evaluate(
    model: BundleArgument,
    reading: ReadingOptions,
    data: SourceOption = None,
    split: Annotated[
        str | None,
        option(
            "--split",
            help="train, val, test, or all; if not given test of the run's own data and, of data from elsewhere, all "
            "images (only their test part if a source among them was trained on). Of data from elsewhere the part so "
            "named, or all where there are no parts.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            help="The folder for the report; if not given RUN/evaluation, of other parts RUN/evaluation-PART, of other "
            "data RUN/external/NAME.",
        ),
    ] = None,
    internal: Annotated[
        Path | None,
        option(
            "--internal",
            help="With --data: the report of the model's own test, to compare with; RUN/evaluation if not given.",
        ),
    ] = None,
    expect: ExpectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model and write the report.

    On data from elsewhere (--data): what is common is scored, what the model has not seen is named, and the figures
    stand beside those of its own test, with the interval of the difference.
    """
    from hilum.bundle import read_bundle
    from hilum.evaluation import external
    from hilum.evaluation.evaluate import check_split

    if internal and not data:
        raise UsageError("--internal names the own test to compare other data with; give those with --data")
    check_split(split)
    if output:
        check_report(output, own_test=split in (None, "test"))
    if data:  # before they are read
        bundle = read_bundle(model, expect=expect)
        if output is None:
            check_writable(bundle.folder.with_name("external"))
        if internal:
            external.find_report(internal)
    table = read_table(data, reading) if data else None
    evaluate_model(
        model,
        table,
        split=split,
        output=output,
        as_json=as_json,
        expect=expect,
        images=reading.images,
        internal=internal,
    )


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how."""

    threshold: Annotated[
        float | None,
        option(
            "--threshold",
            min=0,
            max=1,
            help="The probability from which a finding is called present; the file's own column of thresholds if not "
            "given, else 0.5.",
        ),
    ] = None
    level: Annotated[
        LevelName,
        typer.Option(
            "--level", help="What one row of the score is: an image, or a study or patient as a whole."
        ),
    ] = LevelName.image
    how: Annotated[
        HowName,
        typer.Option("--join", help="How the probabilities of a study's or patient's images become one."),
    ] = HowName.maximum
    prevalence: Annotated[
        float | None,
        option(
            "--prevalence",
            min=0,
            max=1,
            help="Tell predictive values at this prevalence too, a share such as 0.05.",
        ),
    ] = None
    split: Annotated[
        str, typer.Option("--split", help="A part of the labels' own split (train, val, test), or all.")
    ] = "all"
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Score the images that have both, though some have only labels or predictions.",
        ),
    ] = False


@expanded(
    "predictions labels output column threshold level how prevalence split allow_missing layout images as_json"
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
    scoring: ScoringOptions,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the report.")] = Path(
        "scored"
    ),
    column: Annotated[
        str | None,
        option(
            "--column",
            metavar="image=COLUMN",
            help="The predictions' column of images, where it is not image or plainly one, such as Image Index.",
        ),
    ] = None,
    layout: LayoutOption = None,
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score anybody's predictions against labels.

    Whatever made them. The same statistics and report as evaluate, for the probabilities of any system.
    """
    from hilum.cli.terminal import Terminal
    from hilum.evaluation import score
    from hilum.evaluation.evaluate import check_split

    check_split(scoring.split)
    check_report(output, own_test=False)
    image = _image_column(column)
    for path in predictions:
        check_source(path)
    table = read_table(labels, ReadingOptions(layout, images))
    joined = score.mean([score.read(path, image=image, findings=table.findings) for path in predictions])
    watch = Terminal()
    watch.stage("Scoring")
    result = score.score(
        joined,
        table,
        threshold=scoring.threshold,
        unit=score.Unit(scoring.level.value, scoring.how.value),
        prevalence=scoring.prevalence,
        allow_missing=scoring.allow_missing,
        split=scoring.split,
    )
    show_report(result, output, watch, as_json=as_json)


def _image_column(told: str | None) -> str:
    """Return COLUMN of `--column image=COLUMN`, empty without one."""
    if told is None:
        return ""
    field, equals, column = (part.strip() for part in told.partition("="))
    if field != "image" or not equals or not column:
        raise UsageError(
            f"--column {told!r} is not of the form image=COLUMN, which names the predictions' images"
        )
    return column


def evaluate_model(
    model: Path,
    table: Any,
    *,
    split: str | None,
    output: Path | None,
    as_json: bool,
    expect: str | None = None,
    images: Path | None = None,
    internal: Path | None = None,
) -> None:
    """Score a model and report it, on a table of data from elsewhere or, with None, on the run's own."""
    from hilum.cli.terminal import Terminal
    from hilum.evaluation.evaluate import evaluate, subject

    watch = Terminal()
    scored = subject(model, table, expect=expect, images=images, internal=internal)
    if output is None and table is None:
        check_report(scored.output(split=split or "test"), own_test=split in (None, "test"))
    result = evaluate(scored, split=split, watch=watch)
    folder = output or scored.output(result)
    check_report(folder, own_test=result.split == "test" and result.external is None)
    show_report(result, folder, watch, as_json=as_json)


def show_report(result: Any, folder: Path, watch: Any, *, as_json: bool) -> None:
    """Write the report of an Evaluation and show its figures."""
    from hilum.cli.terminal import RESEARCH, show, show_json, show_pairs
    from hilum.report import formatting
    from hilum.report.evaluation import page
    from hilum.report.evaluation.disparities import disparity_sentences

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
        pairs = {"finding": finding, "threshold": f"{scores['threshold']:.3f} ({result.decision.origin})"}
        pairs |= {label: formatting.estimate(scores.get(name)) for label, name in HEADLINES.items()}
        show_pairs(pairs)
    else:
        entries.append(("macro mean", result.metrics["macro"]))
        noun = "finding"
        shown: tuple[str, ...] = ("AUROC", "average precision")
        if result.task.exclusive:
            noun, shown = "class", ("AUROC", "sensitivity", "PPV")
            show_pairs(
                {"accuracy": f"{formatting.estimate(result.metrics['accuracy'])}, {result.decision.origin}"}
            )
        show(
            [
                [
                    finding,
                    str(scores.get("positives", "")),
                    *(formatting.estimate(scores.get(HEADLINES[label])) for label in shown),
                ]
                for finding, scores in entries
            ],
            header=[noun, "positives", *(f"{label} (95 %)" for label in shown)],
            right=range(1, 2 + len(shown)),
        )
    if result.external and result.external.contrasts:
        show(
            [
                [name, formatting.NAMES[metric], *map(formatting.estimate, contrast.to_dict().values())]
                for name, row in result.external.contrasts.items()
                for metric, contrast in row.items()
            ],
            header=["", "figure", "own test", "here", "difference (95 %)"],
            right=(2, 3, 4),
        )
    for finding, scores in result.metrics["findings"].items():
        if scores["auroc"].get("reason"):
            watch.say(f"{finding}: AUROC {scores['auroc']['reason']}")
    if result.subgroups:
        for remark in disparity_sentences(result.subgroups):
            watch.say(remark)
    where = formatting.part(result.split)
    watch.say(
        f"{result.data}, {where}: {count(len(result.images), 'image')} of "
        f"{count(len(set(result.patients)), 'patient')}. {RESEARCH}"
    )
    typer.echo(f"report: {report}")
