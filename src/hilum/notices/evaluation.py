"""Notices of what a reader must know before any figure of an evaluation."""

from collections.abc import Sequence

from hilum.notices.notice import Wording


def _leaky(*, leaks: Sequence[str]) -> str:
    if leaks:
        return f"The split is leaky, and training was told to go on: {'; '.join(leaks)}. The figures flatter."
    return "The split is leaky: images of one patient may stand in training and in the test. The figures flatter."


def _calibrated_elsewhere(*, thresholds: bool, images: int, site: str) -> str:
    what = "threshold and the calibration come" if thresholds else "calibration comes"
    source = f"{images:,} images of {site}" if site else "the training's validation"
    return f"External data: the {what} from {source}."


def _part_scored(*, part: str, left_out: int, familiar: bool) -> str:
    also = ", the training's own among them" if familiar else ""
    return (
        f"Only the {part} part of this data set is scored; {left_out:,} more labelled images of it are left out "
        f"(--split all scores them too{also})."
    )


def _own_test_among(*, shared: int, images: int, new: str) -> str:
    alone = f"; evaluate {new} alone" if new else ""
    return (
        f"{shared:,} of the {images:,} images are the model's own test itself, so that the difference from it is "
        f"understated{alone}."
    )


EVALUATION = {
    "worse-than-chance": Wording(
        "warning",
        lambda *, findings: (
            f"Worse than chance: {', '.join(findings)}. Here the model ranks images without the finding above those "
            "with it: do not use it on such images, and see whether labels or images are inverted."
        ),
        "The whole interval of the AUROC lies below 0.5; no calibration and no threshold mends a wrong ranking.",
    ),
    "leaky-split": Wording(
        "warning",
        _leaky,
        "Patients or pictures stand in training and in the test; divide the data anew and train again.",
    ),
    "scored-on-training": Wording(
        "warning",
        "These figures include images that the model was trained or tuned on ({part}); they are no test.",
        "Another part than the test was evaluated; its figures are too good.",
    ),
    "calibrated-elsewhere": Wording(
        "warning",
        _calibrated_elsewhere,
        "The data are not the training's own; `hilum bundle recalibrate` fits calibration and threshold there.",
    ),
    "no-negatives": Wording(
        "warning",
        lambda *, findings: (
            f"None of these images is known to have none of {', '.join(findings)}, which are this model's negatives: "
            "nothing can be said of how it tells them apart."
        ),
        "The data set has no image without any finding, which the model learned as its negatives.",
    ),
    "part-scored": Wording(
        "warning", _part_scored, "Some labelled images of a data set from elsewhere are in other parts."
    ),
    "recalibrated-bundle": Wording(
        "warning",
        "The bundle was {summary}.",
        "Own data are scored with a calibration that was fitted at another site.",
    ),
    "recalibration-caution": Wording(
        "warning",
        "Where it was recalibrated, {caution}.",
        "What spoke against using the model at the site where it was recalibrated.",
    ),
    "calibrating-patients-left-out": Wording(
        "warning",
        "{left_out:,} images of patients who calibrated this bundle are left out; {scored:,} are scored.",
        "Images cannot test a calibration that was fitted on their patients.",
    ),
    "test-reads-not-counted": Wording(
        "warning",
        "The bundle stands outside its run: how often this test was read is not counted.",
        "Evaluate the run's folder instead, which keeps a ledger of test reads.",
    ),
    "test-read-not-kept": Wording(
        "warning",
        "This read of the test could not be entered in {ledger} ({reason}): the next evaluation will not count it.",
        "The run lies where nothing can be written; evaluate a copy that can be, or keep count yourself.",
    ),
    "test-read-again": Wording(
        "warning",
        "This test split was evaluated {reads} times in this run; choices made between make it flatter.",
        "Whoever chooses by the test must test on other data.",
    ),
    "images-unreadable": Wording(
        "warning",
        lambda *, images: (
            f"Left out, since they could not be read: {images:,} image{'' if images == 1 else 's'}."
        ),
        "Files are missing or damaged; the run's quarantine.csv lists them.",
    ),
    "rows-left-out": Wording(
        "warning",
        "{note}.",
        "What the table's own notes say of rows that do not answer the task.",
    ),
    "source-trained-on": Wording(
        "warning",
        lambda *, sources: (
            f"a data set of the name {', '.join(sources)} was trained on: images of its training may be among these."
        ),
        "Without the run's table nobody can tell which images trained the model.",
    ),
    "patients-trained-on": Wording(
        "warning",
        "{images:,} images are of patients that the model was trained or tuned on; they flatter.",
        "Leave these patients out of the data.",
    ),
    "trained-on-phantoms": Wording(
        "warning",
        "Trained on synthetic radiographs: it shows that the software works and nothing about patients.",
        "The model is a demonstration.",
    ),
    "finding-read-from": Wording(
        "warning",
        lambda *, finding, columns: f"{finding} is read from {' and '.join(columns)}.",
        "The data set names a finding of the model otherwise; check that it means the same.",
    ),
    "findings-not-scored": Wording(
        "warning",
        lambda *, findings: f"Not known to this data set, and not scored: {', '.join(findings)}.",
        "The data set has no labels for some findings of the model.",
    ),
    "not-seen-in-training": Wording(
        "warning",
        lambda *, respects: f"Not seen in training: {'; '.join(respects)}.",
        "Source, view, age, size or likeness of some images lie outside of the training's.",
    ),
    "training-not-told": Wording(
        "warning",
        lambda *, respects: f"The bundle does not tell its training images' {' and '.join(respects)}.",
        "An old bundle: it cannot be said whether these images differ from those of training.",
    ),
    "own-test-among-these": Wording(
        "warning",
        _own_test_among,
        "The data from elsewhere hold images of the model's own test.",
    ),
    "own-test-patients": Wording(
        "warning",
        "{patients:,} patients are in the model's own test too, with other images: the intervals of the differences "
        "take the two for independent, and are as a rule too wide.",
        "The data from elsewhere share patients with the model's own test.",
    ),
    "no-own-test": Wording(
        "warning",
        "No comparison with the model's own test: {reason}.",
        "Evaluate the run's own test first, or name its report with --internal.",
    ),
    "lower-than-own-test": Wording(
        "warning",
        lambda *, losses: f"AUROC is lower than on the model's own test: {', '.join(losses)}.",
        "The interval of the difference excludes zero.",
    ),
    "images-not-joined": Wording(
        "warning",
        "{missing}; {scored:,} images are scored.",
        "Some images have a label and no prediction, or the other way round, and --allow-missing was given.",
    ),
    "columns-ignored": Wording(
        "warning",
        lambda *, columns: f"Columns that are no finding were ignored: {', '.join(columns)}.",
        "The file of predictions has columns that name no finding.",
    ),
    "probabilities-empty": Wording(
        "warning",
        "{number:,} probabilities are empty; their finding is not scored for that image.",
        "The file of predictions has empty cells.",
    ),
    "own-thresholds": Wording(
        "warning",
        "Thresholds are those of {name}, one a finding; --threshold takes another.",
        "The file of predictions has a column of thresholds.",
    ),
    "no-thresholds": Wording(
        "warning",
        "No thresholds came with {name}: 0.5 is taken for all findings; --threshold takes another.",
        "Sensitivity and specificity at 0.5 mean little for probabilities that are not calibrated.",
    ),
    "predictions-of-bundle": Wording(
        "warning",
        "Predictions of the bundle {bundle}, read from a file: what it was trained on was not held against these "
        "images, as hilum evaluate does.",
        "Use `hilum evaluate` to score a bundle.",
    ),
    "predictions-from-elsewhere": Wording(
        "warning",
        "Predictions from elsewhere: how the model was trained and chosen is not known here.",
        "Ask whoever made them whether the model has seen these patients.",
    ),
    "cross-validated": Wording(
        "warning",
        "Cross-validation: {models} models, each scored on the patients that it never saw. The figures tell what "
        "training by this recipe gives on these data; they are not those of one bundle, nor of the ensemble.",
        "To know what one bundle does, evaluate it on data that no model has seen.",
    ),
    "folds-not-comparable": Wording(
        "warning",
        "The folds' probabilities are not comparable: AUROC {together:.3f} over all folds together, {single:.3f} as "
        "the mean of the folds. The headline is the mean of the folds, each ranked and called by its own model; all "
        "that is drawn or counted over all folds together mixes their scales and looks worse than single models.",
        "All folds together rank clearly worse than single folds: train longer, or in fewer and larger folds.",
    ),
    "one-threshold": Wording(
        "warning",
        "Decisions are at one threshold, the mean of the folds' on the logit scale; where a patient was in another "
        "fold's validation, it had a small share in it. By fold, each is at the threshold of its own model.",
        "Of a cross-validation: how findings are called in the figures over all folds.",
    ),
    "test-in-no-fold": Wording(
        "warning",
        "The source's own test of {images:,} images is in no fold; no model was scored on it here.",
        "Evaluate the ensemble on it, once.",
    ),
    "images-in-no-fold": Wording(
        "warning",
        "{images:,} images could not be read and are left out.",
        "Files are missing or damaged; a fold's quarantine.csv lists them.",
    ),
    "phantoms": Wording(
        "warning",
        "Synthetic radiographs: it shows that the software works and nothing about patients.",
        "The cross-validation is a demonstration.",
    ),
    "ranked-wrong": Wording(
        "warning",
        "{finding}: the model ranks these images {how} (calibration slope {slope}; AUROC {auroc}); its calibration is "
        "left as it was: do not use it here",
        "No calibration mends a wrong ranking; see whether labels or images are inverted at the site.",
    ),
    "ranking-unsure": Wording(
        "warning",
        "{finding}: the ranking of these images is not surely better than chance (AUROC {auroc}); no calibration mends "
        "that: do not use the model here unless more images show otherwise",
        "The interval of the AUROC at the site reaches 0.5; give more images.",
    ),
    "findings-mapped": Wording("note", "{note}", "How the site's findings were read as those of the model."),
    "own-validation-calibrates": Wording(
        "note",
        "these are the data that the bundle was trained on: their val calibrates",
        "Recalibration on the training's own data uses their validation again.",
    ),
    "trained-on-this-source": Wording(
        "note",
        lambda *, sources: (
            f"the bundle was trained on a data set of the name {', '.join(sources)}: images that trained it must not "
            "calibrate it"
        ),
        "Make sure that none of these images was in the training.",
    ),
    "half-calibrates": Wording(
        "note",
        "the site has no split: half of its patients calibrate (--share), the others are left to test",
        "Without a split the patients are divided at random.",
    ),
    "all-calibrate": Wording(
        "note",
        "all images calibrate: none is left to test the new bundle at this site",
        "Give a --share below 1 to keep patients for a test.",
    ),
    "not-recalibrated": Wording(
        "note",
        lambda *, findings: f"calibrated as before, for want of patients: {', '.join(findings)}",
        "Fewer than 20 patients with, or without, the finding.",
    ),
    "rough-calibration": Wording(
        "note",
        lambda *, patients, least, more: (
            f"{patients} patients of the scarcer kind: the new calibration is rough below {least}"
            + (f"; {more}" if more else "")
        ),
        "Give more patients with, and without, the finding.",
    ),
    "calibration-limited": Wording(
        "note", "{reason}", "What of a calibration could not be fitted plainly, and what was done instead."
    ),
}
