"""An Evaluation -> the sentences of its report: what, on whom, how good, where it fails, within which limits."""

import numpy as np

from hilum.evaluation.evaluation import Evaluation
from hilum.evaluation.scoring import worse_than_chance
from hilum.progress import count
from hilum.report import formatting
from hilum.report.evaluation import fold_section, plots
from hilum.report.evaluation.disparities import disparity_sentences
from hilum.report.section import Block, Bullets, Heading, Paragraph, Section, Tile, Tiles


def section(evaluation: Evaluation) -> Section:
    """Return the first screen: on whom, how good with interval, where it fails."""
    tiles = fold_section.tiles(evaluation, evaluation.folds) if evaluation.folds else _tiles(evaluation)
    blocks: list[Block] = [Tiles(tuple(tiles))]
    if sentences := failures(evaluation):
        blocks += [Heading("Where it fails"), Bullets(sentences)]
    level = plots.confidence(evaluation)
    rule = f"{decision_rule(evaluation)} Below each estimate: its {level} confidence interval."
    return Section("summary", "Summary", (*blocks, Paragraph(rule, small=True)), whom(evaluation))


def what(evaluation: Evaluation) -> str:
    """Say what the model does."""
    findings = evaluation.findings
    if evaluation.task.exclusive:
        return f"Classifier of chest radiographs into one of {len(findings)} classes: {formatting.listed(findings)}."
    if len(findings) == 1:
        return f"Classifier of chest radiographs: {findings[0]}, present or absent."
    return f"Classifier of chest radiographs: {len(findings)} findings, each present or absent."


def whom(evaluation: Evaluation) -> str:
    """Say on which images it was evaluated."""
    images = count(len(evaluation.images), "image")
    patients = count(len(np.unique(evaluation.patients)), "patient")
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
            "auroc": f"{findings[0]}: worse than chance"
            if worse_than_chance(entries["auroc"]["high"])
            else findings[0],
            "sensitivity": at,
            "specificity": at,
            "ppv": f"at a prevalence of {prevalence}",
        }
        return [_tile(name, entries[name], remark) for name, remark in remarks.items()]
    macro = evaluation.metrics["macro"]
    known = {name: plots.scores_of(evaluation, name)["auroc"] for name in findings}
    known = {name: entry for name, entry in known.items() if formatting.is_known(entry)}
    remark = f"of {len(known)} {'classes' if evaluation.task.exclusive else 'findings'}"
    tiles = [_estimate_tile("Mean AUROC", macro["auroc"], remark)]
    if evaluation.task.exclusive:
        tiles.append(_tile("accuracy", plots.accuracy_of_classes(evaluation), "most probable class"))
    else:
        tiles.append(_estimate_tile("Mean average precision", macro["average_precision"], remark))
    if len(known) > 1:
        for name, choose in (("Highest AUROC", max), ("Lowest AUROC", min)):
            finding = choose(known, key=lambda finding: known[finding]["value"])
            tiles.append(_estimate_tile(name, known[finding], finding))
    return tiles


def _tile(name: str, entry: formatting.Entry, remark: str) -> Tile:
    return _estimate_tile(
        formatting.NAMES[name], entry, remark if formatting.is_known(entry) else formatting.reason(entry)
    )


def _estimate_tile(name: str, entry: formatting.Entry, remark: str) -> Tile:
    return Tile(name, formatting.value(entry), formatting.interval(entry), remark)


def failures(evaluation: Evaluation) -> tuple[str, ...]:
    """Say where it fails, a sentence each."""
    found = evaluation.subgroups
    return (*_failures(evaluation), *(disparity_sentences(found) if found else ()))


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
    """Name findings whose calibration slope differs from 1 beyond its interval."""
    extreme, timid = [], []
    for finding in evaluation.findings:
        slope = plots.scores_of(evaluation, finding)["calibration_slope"]
        if slope.get("low") is None or slope.get("high") is None:
            continue
        # A wrong ranking is told by itself: its probabilities are not too extreme but point the wrong way.
        if worse_than_chance(plots.scores_of(evaluation, finding)["auroc"]["high"]):
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


def warnings(evaluation: Evaluation) -> tuple[str, ...]:
    """Say what a reader must know before any number."""
    if evaluation.leaky and not any("leaky" in warning.text.lower() for warning in evaluation.warnings):
        leaky = "The split is leaky: images of one patient may stand in training and in this part."
        return (leaky, *map(str, evaluation.warnings))
    return tuple(map(str, evaluation.warnings))


def test_reads(evaluation: Evaluation) -> str:
    """Say how often the test split was read; empty where unknown."""
    if evaluation.test_reads == 0:
        return ""
    return "once" if evaluation.test_reads == 1 else f"{evaluation.test_reads:,} times"


def decision_rule(evaluation: Evaluation) -> str:
    """Say from when on a finding is called present."""
    if evaluation.task.exclusive:
        accuracy = formatting.estimate(plots.accuracy_of_classes(evaluation))
        return f"The most probable class is called: accuracy {accuracy}."
    rule = evaluation.decision.origin
    if len(evaluation.findings) > 1:
        return f"A finding is called present at or above its threshold ({rule})."
    threshold = formatting.probability(float(evaluation.decision.array[0]))
    return f"The finding is called present at a probability of {threshold} or more (threshold: {rule})."


def intervals(evaluation: Evaluation) -> str:
    """Say how the intervals were made."""
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


def limits(evaluation: Evaluation) -> list[str]:
    """Say what the figures do not say, a sentence each."""
    here = evaluation.data
    sentences = [
        f"The figures hold for images like those of {here}. Another site, device, view or age can change them much.",
        "PPV, NPV, precision and F1 depend on the prevalence in this set.",
        "Labels are taken as they came with the data. Where they were read from reports, some are wrong.",
    ]
    if evaluation.cases:
        sentences += [
            "An evidence map shows what moved the logit. It does not outline a lesion and does not explain why.",
            "The images shown were chosen from this set and are no random sample of it.",
        ]
    return sentences
