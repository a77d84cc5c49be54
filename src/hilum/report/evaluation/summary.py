"""An Evaluation -> the sentences of its report: what, on whom, how good, where it fails, within which limits."""

import re
from dataclasses import dataclass

import numpy as np

from hilum.evaluation.evaluation import Evaluation
from hilum.report import formatting
from hilum.report.evaluation import plots
from hilum.report.evaluation.disparities import remarks

RESEARCH_USE = "Research use only. Not a medical device: no result here may guide the care of a patient."


@dataclass(frozen=True)
class Tile:
    """One of the few numbers of the first screen; `remark` says what it is of."""

    name: str
    value: str
    interval: str
    remark: str = ""


@dataclass(frozen=True)
class Story:
    """The words of a report.

    Attributes:
        research_use: The sentence that stands on every output.
        what: What the model does.
        whom: On which images it was evaluated.
        tiles: How good it is.
        failures: Where it fails, one sentence each.
        warnings: What a reader must know before any number.
        test_reads: How often the test split was read; empty where unknown.
        decision_rule: From when on a finding is called present.
        intervals: How the intervals were made.
        limits: What the figures do not say.
    """

    research_use: str
    what: str
    whom: str
    tiles: tuple[Tile, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    test_reads: str
    decision_rule: str
    intervals: str
    limits: tuple[str, ...]


def tell(evaluation: Evaluation) -> Story:
    """Finds the words for an evaluation."""
    return Story(
        research_use=RESEARCH_USE,
        what=_what(evaluation),
        whom=_whom(evaluation),
        tiles=tuple(_tiles(evaluation)),
        failures=(*_failures(evaluation), *(remarks(evaluation.subgroups) if evaluation.subgroups else ())),
        warnings=_warnings(evaluation),
        test_reads=_test_reads(evaluation),
        decision_rule=_decision_rule(evaluation),
        intervals=_intervals(evaluation),
        limits=tuple(_limits(evaluation)),
    )


def markdown(text: str) -> str:
    """Escapes text for Markdown, tables and raw HTML included; a line break becomes a space."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", flat).replace("&", "&amp;")


def _what(evaluation: Evaluation) -> str:
    findings = evaluation.findings
    if evaluation.task.exclusive:
        return f"Classifier of chest radiographs into one of {len(findings)} classes: {formatting.listed(findings)}."
    if len(findings) == 1:
        return f"Classifier of chest radiographs: {findings[0]}, present or absent."
    return f"Classifier of chest radiographs: {len(findings)} findings, each present or absent."


def _whom(evaluation: Evaluation) -> str:
    images = formatting.count(len(evaluation.images), "image")
    patients = formatting.count(len(np.unique(evaluation.patients)), "patient")
    text = f"{images} of {patients}, {evaluation.data}, {formatting.part(evaluation.split)}."
    if len(evaluation.findings) > 1:
        return text
    entries = plots.scores_of(evaluation, evaluation.findings[0])
    positives, known = entries["positives"], entries["positives"] + entries["negatives"]
    share = formatting.per_cent(positives, known)
    return f"{text} {evaluation.findings[0]} is present in {positives:,} of {known:,} ({share})."


def _tiles(evaluation: Evaluation) -> list[Tile]:
    findings = evaluation.findings
    if len(findings) == 1:
        entries = plots.scores_of(evaluation, findings[0])
        at = f"at threshold {formatting.probability(float(evaluation.decision.array[0]))}"
        prevalence = formatting.per_cent(entries["positives"], entries["positives"] + entries["negatives"])
        remarks = {
            "auroc": findings[0],
            "sensitivity": at,
            "specificity": at,
            "ppv": f"at a prevalence of {prevalence}",
        }
        return [_tile(name, entries[name], remark) for name, remark in remarks.items()]
    macro = evaluation.metrics["macro"]
    noun = "classes" if evaluation.task.exclusive else "findings"
    known = {name: plots.scores_of(evaluation, name)["auroc"] for name in findings}
    known = {name: entry for name, entry in known.items() if formatting.is_known(entry)}
    tiles = [
        Tile(
            "Mean AUROC",
            formatting.value(macro["auroc"]),
            formatting.interval(macro["auroc"]),
            f"of {len(known)} {noun}",
        )
    ]
    if evaluation.task.exclusive:
        tiles.append(_tile("accuracy", plots.accuracy_of_classes(evaluation), "most probable class"))
    else:
        precision = macro["average_precision"]
        tiles.append(
            Tile(
                "Mean average precision",
                formatting.value(precision),
                formatting.interval(precision),
                f"of {len(known)} {noun}",
            )
        )
    if len(known) > 1:
        for name, choose in (("Highest AUROC", max), ("Lowest AUROC", min)):
            finding = choose(known, key=lambda finding: known[finding]["value"])
            tiles.append(
                Tile(name, formatting.value(known[finding]), formatting.interval(known[finding]), finding)
            )
    return tiles


def _tile(name: str, entry: formatting.Entry, remark: str) -> Tile:
    if not formatting.is_known(entry):
        return Tile(formatting.NAMES[name], formatting.NOT_ESTIMABLE, "", formatting.reason(entry))
    return Tile(formatting.NAMES[name], formatting.value(entry), formatting.interval(entry), remark)


def _failures(evaluation: Evaluation) -> list[str]:
    if evaluation.task.exclusive:
        return _confused(evaluation)
    called = evaluation.decisions
    sentences, worst = [], []
    for column, finding in enumerate(evaluation.findings):
        present, absent = evaluation.labels[:, column] == 1, evaluation.labels[:, column] == 0
        missed, wrongly = int((present & ~called[:, column]).sum()), int((absent & called[:, column]).sum())
        counts = (missed, int(present.sum()), wrongly, int(absent.sum()))
        if counts[1]:
            worst.append((missed / counts[1], finding, counts))
    if len(evaluation.findings) == 1 and worst:
        missed, positives, wrongly, negatives = worst[0][2]
        shares = formatting.per_cent(missed, positives), formatting.per_cent(wrongly, negatives)
        sentences.append(
            f"It misses {missed:,} of {positives:,} images with {worst[0][1]} ({shares[0]}) "
            f"and calls it in {wrongly:,} of {negatives:,} without ({shares[1]})."
        )
    elif worst:
        missed, positives = max(worst)[2][:2]
        share = formatting.per_cent(missed, positives)
        sentences.append(
            f"Missed most often: {max(worst)[1]}, in {missed:,} of {positives:,} images ({share})."
        )
    sentences += _not_estimable(evaluation) + _miscalibrated(evaluation)
    return sentences


def _confused(evaluation: Evaluation) -> list[str]:
    counts = plots.class_confusion(evaluation)
    errors = counts * (1 - np.eye(len(counts), dtype=np.int64))
    if not errors.any():
        return ["No image of this set was put into a wrong class."]
    truth, called = (int(place) for place in np.unravel_index(errors.argmax(), errors.shape))
    total = int(counts[truth].sum())
    number, names = int(errors[truth, called]), evaluation.findings
    share = formatting.per_cent(number, total)
    return [
        f"Most frequent error: {names[truth]} called {names[called]}, in {number:,} of {total:,} images ({share}).",
        *_not_estimable(evaluation),
        *_miscalibrated(evaluation),
    ]


def _not_estimable(evaluation: Evaluation) -> list[str]:
    entries = {name: plots.scores_of(evaluation, name)["auroc"] for name in evaluation.findings}
    missing = [
        f"{name} ({formatting.reason(entry)})"
        for name, entry in entries.items()
        if not formatting.is_known(entry)
    ]
    return [f"Not estimable in this set: {formatting.listed(missing)}."] if missing else []


def _miscalibrated(evaluation: Evaluation) -> list[str]:
    """Names findings whose calibration slope differs from 1 beyond its interval."""
    extreme, timid = [], []
    for finding in evaluation.findings:
        slope = plots.scores_of(evaluation, finding)["calibration_slope"]
        if slope.get("low") is None or slope.get("high") is None:
            continue
        if slope["high"] < 1:
            extreme.append(finding)
        elif slope["low"] > 1:
            timid.append(finding)
    several = len(evaluation.findings) > 1
    sentences = []
    for names, how, sign in ((extreme, "too extreme", "below"), (timid, "not extreme enough", "above")):
        if names:
            subject = f"Probabilities of {formatting.listed(names)}" if several else "Probabilities"
            sentences.append(f"{subject} are {how} on these images (calibration slope {sign} 1).")
    return sentences


def _warnings(evaluation: Evaluation) -> tuple[str, ...]:
    if evaluation.leaky and not any("leaky" in warning.text.lower() for warning in evaluation.warnings):
        leaky = "The split is leaky: images of one patient may stand in training and in this part."
        return (leaky, *map(str, evaluation.warnings))
    return tuple(map(str, evaluation.warnings))


def _test_reads(evaluation: Evaluation) -> str:
    if evaluation.test_reads == 0:
        return ""
    return "once" if evaluation.test_reads == 1 else f"{evaluation.test_reads:,} times"


def _decision_rule(evaluation: Evaluation) -> str:
    if evaluation.task.exclusive:
        accuracy = formatting.estimate(plots.accuracy_of_classes(evaluation))
        return f"The most probable class is called: accuracy {accuracy}."
    rule = evaluation.decision.origin
    if len(evaluation.findings) > 1:
        return f"A finding is called present at or above its threshold ({rule})."
    threshold = formatting.probability(float(evaluation.decision.array[0]))
    return f"The finding is called present at a probability of {threshold} or more (threshold: {rule})."


def _intervals(evaluation: Evaluation) -> str:
    methods = dict.fromkeys(
        str(entry["method"])
        for finding in evaluation.findings
        for entry in plots.scores_of(evaluation, finding).values()
        if isinstance(entry, dict) and entry.get("method")
    )
    how = f" ({'; '.join(methods)})" if methods else ""
    lack = (
        "how much training runs differ"
        if evaluation.folds is None
        else "that the folds' models would differ anew"
    )
    return (
        f"Intervals are {plots.confidence(evaluation)} confidence intervals{how}. They do not include {lack}."
    )


def _limits(evaluation: Evaluation) -> list[str]:
    here = evaluation.data
    limits = [
        f"The figures hold for images like those of {here}. Another site, device, view or age can change them much.",
        "PPV, NPV, precision and F1 depend on the prevalence in this set.",
        "Labels are taken as they came with the data. Where they were read from reports, some are wrong.",
    ]
    if evaluation.cases:
        limits.append(
            "An evidence map shows what moved the logit. It does not outline a lesion and does not explain why."
        )
    if evaluation.cases:
        limits.append("The images shown were chosen from this set and are no random sample of it.")
    return limits
