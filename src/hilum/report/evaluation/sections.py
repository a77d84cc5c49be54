"""An Evaluation -> the sections of its report that are drawn from metrics.json alone."""

from hilum.evaluation.evaluation import Evaluation
from hilum.report.evaluation import plots, summary, tables
from hilum.report.section import Block, Bullets, Facts, Heading, Paragraph, Plots, Section, Tables


def discrimination(evaluation: Evaluation) -> Section:
    """Return how well the probabilities rank images."""
    what = (
        "of a class above those of the others"
        if evaluation.task.exclusive
        else "with a finding above images without it"
    )
    lead = f"How well the probabilities rank images {what}."
    blocks = (Plots(tuple(plots.discrimination(evaluation))),)
    return Section("discrimination", "Discrimination", blocks, lead, link="Discrimination")


def calibration(evaluation: Evaluation) -> Section:
    """Return whether the probabilities are frequencies."""
    lead = "Whether a predicted probability can be read as a frequency in this set."
    blocks = (Plots(tuple(plots.calibration(evaluation))),)
    return Section("calibration", "Calibration", blocks, lead, link="Calibration")


def decisions(evaluation: Evaluation) -> Section:
    """Return what the decisions amount to."""
    title = f"Decisions{'' if evaluation.task.exclusive else ' at the threshold'}"
    blocks = (Plots(tuple(plots.decisions(evaluation)), beside=tables.classification_report(evaluation)),)
    return Section("decisions", title, blocks, summary.decision_rule(evaluation), link="Decisions")


def metrics(evaluation: Evaluation) -> Section:
    """Return every metric with its interval."""
    several = len(evaluation.findings) > 1
    grids = (tables.ranking(evaluation), tables.calls(evaluation))
    block = Tables(grids, note=summary.intervals(evaluation), layout="" if several else "pair")
    title = f"All metrics{f' by {evaluation.task.noun}' if several else ''}"
    return Section("metrics", title, (block,), link="All metrics")


def training(evaluation: Evaluation) -> Section:
    """Return how the model was trained."""
    nothing = "Nothing is known of the training: these predictions came from elsewhere."
    known: Block = Facts(evaluation.facts) if evaluation.facts else Paragraph(nothing)
    blocks = (Plots(tuple(plots.training(evaluation))), known)
    return Section("training", "How it was trained", blocks, link="Training")


def data(evaluation: Evaluation) -> Section:
    """Return on what it was evaluated."""
    facts = [
        ("Data", evaluation.data),
        ("Evaluated", summary.whom(evaluation)),
        ("Split", evaluation.split_description),
    ]
    if reads := summary.test_reads(evaluation):
        facts.append(("Evaluations of this part in this run", reads))
    blocks = (Facts(tuple(facts)), Tables((tables.cohort(evaluation),)))
    return Section("data", "Data and split", blocks, link="Data and split")


def limits(evaluation: Evaluation) -> Section:
    """Return what the figures do not say, and whom to cite."""
    blocks: list[Block] = [Bullets(tuple(summary.limits(evaluation)))]
    if evaluation.citations:
        blocks += [Heading("Citations", level=2), Bullets(evaluation.citations, numbered=True)]
    return Section("limits", "Limits", tuple(blocks), link="Limits", in_card=True)
