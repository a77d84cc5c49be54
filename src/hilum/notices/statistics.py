"""Notices of statistics: why a metric or its interval cannot be estimated, and what a fit met."""

from hilum.notices.notice import Wording


def _few_patients(
    *, number: int, units: str, which: str, fewest: int, findings: int = 1, of_findings: int = 0
) -> str:
    unit = units.removesuffix("s") if number == 1 else units
    several = f", for {findings} of the {of_findings} findings" if of_findings else ""
    return f"no interval: {number} {unit} {which} the finding, fewer than {fewest}{several}"


def _mean_of_some(*, used: int, findings: int, reason: str | None) -> str:
    mean = f"mean of the {used} of {findings} findings that have a value"
    return mean if reason is None else f"{mean}; {reason}"


STATISTICS = {
    "not-estimable": Wording(
        "note",
        "not estimable: 0 {lacking}",
        "A metric has no value for want of such images; it needs more data.",
    ),
    "no-slope": Wording(
        "note",
        "not estimable: the probabilities separate the classes, or are all equal",
        "A calibration slope does not exist here.",
    ),
    "nothing-called": Wording(
        "note",
        "not estimable: no image is called {called}",
        "A predictive value at a stated prevalence needs images that are called so.",
    ),
    "no-finding-has-value": Wording(
        "note",
        "not estimable: no finding has a value",
        "A mean over findings has nothing to take the mean of.",
    ),
    "every-finding-rare": Wording(
        "note", "not estimable: every finding is rare", "A summary without the rare findings has none left."
    ),
    "one-model-without-value": Wording(
        "note",
        "not estimable: one of the two models has no value",
        "A difference of two models needs the metric of both.",
    ),
    "one-sample-without-value": Wording(
        "note",
        "not estimable: one of the two has no value",
        "A difference of two sets of images needs the metric of both.",
    ),
    "delong-few-patients": Wording(
        "note",
        "not estimable: fewer than 2 patients with, or without, the finding",
        "DeLong's test needs two patients of each class.",
    ),
    "delong-without-variance": Wording(
        "note",
        "not estimable: the AUROC difference has no variance",
        "DeLong's test has nothing to judge a difference by, for example between equal rankings.",
    ),
    "nothing-to-compare-with": Wording(
        "note", "no image to compare with", "A number cannot be compared without images of both kinds."
    ),
    "too-small": Wording(
        "note",
        "{why}",
        "A subgroup, or the rest beside it, has too few patients to be scored; the text says which.",
    ),
    "few-patients": Wording(
        "note", _few_patients, "Bootstrap intervals miss the truth too often with so few patients."
    ),
    "fewer-patients": Wording(
        "note", "no interval: fewer than {fewest} patients", "There are too few patients for an interval."
    ),
    "single-unit": Wording(
        "note",
        "no interval: a single {unit} counts here, fewer than 2",
        "A proportion of one patient's images has no interval.",
    ),
    "binned-error": Wording(
        "note",
        "no interval: resampling inflates a binned error; read calibration slope and intercept",
        "The expected calibration error comes without an interval.",
    ),
    "few-resamples-defined": Wording(
        "note",
        "no interval: only {share:.0%} of the resamples give a value",
        "Too many bootstrap resamples lack a class, so that the rest are no fair sample.",
    ),
    "resamples-equal": Wording(
        "note",
        "no interval: every resample gives the same value",
        "The bootstrap sees no variation, for example at an AUROC of 1.",
    ),
    "one-sample-without-interval": Wording(
        "note",
        "no interval: one of the two has none",
        "The interval of a difference is made of the two intervals.",
    ),
    "ranked-without-error": Wording(
        "note",
        "no interval: the images are ranked without an error",
        "An AUROC of 0 or 1 has no estimated variance.",
    ),
    "both-ranked-without-error": Wording(
        "note",
        "no interval: both are ranked without an error",
        "Two AUROCs of 0 or 1 have no estimated variance.",
    ),
    "separated": Wording(
        "note", "no interval: the number separates them wholly", "An AUROC of 1 has no estimated variance."
    ),
    "no-band": Wording(
        "note",
        "no band: {patients} patients of the scarcer class, fewer than {fewest}",
        "A curve has no band, since bootstrap intervals miss the truth too often with so few patients.",
    ),
    "mean-of-some-findings": Wording(
        "note", _mean_of_some, "A mean over findings leaves out those whose metric has no value."
    ),
    "temperature-few-labels": Wording(
        "note",
        "not fitted: {number} {which}, fewer than {fewest}",
        "A temperature stays 1 for want of labels on validation; the probabilities are as trained.",
    ),
    "temperature-without-errors": Wording(
        "note",
        "not fitted: no logit errs, so that the likelihood grows without end as T falls",
        "A temperature stays 1, since validation is ranked without an error.",
    ),
    "temperature-at-upper-bound": Wording(
        "warning",
        "at its upper bound: the logits say next to nothing about the labels",
        "A temperature was fitted to a model that hardly tells the classes apart; do not trust its probabilities.",
    ),
    "temperature-at-lower-bound": Wording(
        "warning",
        "at its lower bound: the logits are far too small for the labels",
        "A temperature reached its bound; the probabilities stay too near to the middle.",
    ),
    "threshold-one-class": Wording(
        "warning",
        "0 {lacking}: no threshold can be chosen; 0.5 is used",
        "Validation lacks a class; choose a threshold by other data.",
    ),
    "threshold-no-positives": Wording(
        "warning",
        "0 positives: no sensitivity to reach; 0.5 is used",
        "Validation has no positive to choose a threshold for a sensitivity by.",
    ),
    "threshold-at-chance": Wording(
        "warning",
        "no threshold is better than chance; 0.5 is used",
        "No threshold on validation does better than calling all images alike.",
    ),
    "temperature-kept": Wording(
        "warning",
        "the logits make no error, so that no slope is the best: the temperature is kept",
        "A recalibration fitted the intercept alone, since the site's images are ranked without an error.",
    ),
    "ranks-no-better-than-chance": Wording(
        "error",
        "the model ranks images no better than chance here, or the wrong way round: do not use it here",
        "A recalibration met a model that does not work at the site.",
    ),
    "slope-at-lower-bound": Wording(
        "warning",
        "the logits are far too large for the labels: the temperature is at its upper bound",
        "A recalibration reached a bound; the model is far too sure at the site.",
    ),
    "slope-at-upper-bound": Wording(
        "warning",
        "the logits are far too small for the labels: the slope is at its upper bound",
        "A recalibration reached a bound; the model is far too unsure at the site.",
    ),
}
