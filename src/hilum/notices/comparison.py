"""Notices of what a reader must know before any figure of a comparison."""

from collections.abc import Mapping, Sequence

from hilum.notices.notice import Wording


def _differ(*, what: str, models: Mapping[str, Sequence[str]], meaning: str) -> str:
    values = "; ".join(f"{value}: {', '.join(names)}" for value, names in models.items())
    return f"{what} ({values}): {meaning}."


COMPARISON = {
    "matched-by-name": Wording(
        "warning",
        "{matched}",
        "The runs' splits differ and the pictures could not be compared; equal names may be different pictures.",
    ),
    "tests-differ": Wording(
        "warning",
        "The test images differ. Compared on the {images:,} images in common (own tests: {own}).",
        "The runs have different tests; figures here differ from those of their own reports.",
    ),
    "trained-on-others-tests": Wording(
        "warning",
        lambda *, model, others: (
            f"{model} was trained or tuned on test images of others, left out here: {', '.join(others)}."
        ),
        "What is left of the tests may be easier or harder than the whole.",
    ),
    "training-unknown": Wording(
        "warning",
        "{model} has no {table}: what it was trained on cannot be checked.",
        "The run's table was taken away; put it back to check for leaks.",
    ),
    "leak-in-common": Wording(
        "warning",
        "Leak: {images:,} of the {total:,} images are of patients that {model} was trained or tuned on; its figures "
        "flatter.",
        "Train all runs with one split by patient.",
    ),
    "leaky-model": Wording(
        "warning",
        "The split of {model} is leaky; its figures flatter.",
        "Train the run with a split that does not leak.",
    ),
    "patients-numbered-differently": Wording(
        "warning",
        "{model} and {reference} number patients differently; intervals follow {reference}.",
        "The tables name the patients of the same images differently.",
    ),
    "models-differ": Wording(
        "warning",
        _differ,
        "Thresholds or negatives were chosen by different rules; some figures are not like for like.",
    ),
    "same-bundle": Wording(
        "warning", "{model} and {other} are one and the same bundle.", "Give each run once."
    ),
    "tests-read-again": Wording(
        "warning",
        lambda *, reads: (
            f"Test evaluated more than once: {', '.join(reads)} times; choices made between flatter."
        ),
        "Whoever chooses by the test must test on other data.",
    ),
    "choose-by-validation": Wording(
        "warning",
        "Choose a model by validation: the best of several test figures flatters.",
        "Given with every comparison.",
    ),
    "no-maps": Wording(
        "warning", "No maps: {reason}.", "The images could not be read; say where they lie with --images."
    ),
}
