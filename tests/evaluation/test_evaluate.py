import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hilum.bundle import MOST_PROBABLE
from hilum.data.table import Table
from hilum.errors import DataError
from hilum.evaluation import evaluate
from hilum.report.evaluation import page

NAMES = ("No Finding", "Bacterial Pneumonia", "Viral Pneumonia")


@pytest.fixture(scope="module")
def result(classes):
    return evaluate.evaluate(
        evaluate.subject(classes.bundle, Table.read(classes.table)), split="test", replicates=100
    )


def test_classes_are_scored_by_the_most_probable_one(classes, result):
    greys = np.array([int(name.split("_")[1].removesuffix(".png")) for name in result.images]) / 255
    nearest = np.abs(greys[:, None] - classes.centres).argmin(axis=1)

    assert result.findings == NAMES
    assert len(result.images) == 120
    assert (result.labels.sum(axis=1) == 1).all()
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    assert (result.decisions.sum(axis=1) == 1).all()
    assert (result.decisions.argmax(axis=1) == nearest).all()
    assert result.decision.thresholds is None


def test_the_metrics_of_classes_hold_accuracy_and_confusion(result):
    metrics = json.loads(json.dumps(result.metrics, allow_nan=False))
    right = result.labels.argmax(axis=1) == result.decisions.argmax(axis=1)

    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())
    assert metrics["accuracy"]["low"] < right.mean() < metrics["accuracy"]["high"]
    assert np.trace(metrics["confusion"]) == right.sum()
    assert np.sum(metrics["confusion"], axis=1).tolist() == result.labels.sum(axis=0).tolist()
    assert metrics["threshold_rule"] == MOST_PROBABLE
    assert [entry["threshold"] for entry in metrics["findings"].values()] == [None] * 3
    assert metrics["internal"]


def test_the_class_that_was_called_is_explained(result):
    right = [case for case in result.cases if case.label == 1]
    wrong = [case for case in result.cases if case.label == 0]

    assert all(case.called and case.threshold is None for case in result.cases)
    assert {case.finding for case in right} == set(NAMES)
    assert all(case.truth == case.finding for case in right)
    assert wrong
    assert all(case.truth in set(NAMES) - {case.finding} for case in wrong)
    assert len({case.image for case in wrong}) == len(wrong)


def test_the_wrong_call_made_with_most_conviction_comes_first(result):
    wrong = np.flatnonzero((result.labels * result.decisions).sum(axis=1) == 0)
    surest = wrong[result.probabilities[wrong].max(axis=1).argmax()]

    assert next(case for case in result.cases if case.label == 0).image == result.images[surest]


def test_images_of_no_class_are_left_out_and_counted(classes):
    subject = evaluate.subject(classes.bundle, Table.read(classes.table))

    found = evaluate.evaluate(subject, split="all", replicates=100)

    assert len(found.images) == 237
    told = "3 images are not known to have exactly one of the classes and are left out."
    assert told in map(str, found.warnings)


def test_images_of_two_classes_are_refused(classes):
    table = Table.read(classes.table)
    frame = table.frame.assign(**{"Bacterial Pneumonia": 1.0, "Viral Pneumonia": 1.0})

    with pytest.raises(DataError, match="240 images have two or more of the classes"):
        evaluate.evaluate(
            evaluate.subject(classes.bundle, Table(frame, table.findings, table.sources)), split="all"
        )


def test_explaining_all_classes_of_an_image_calls_one(classes):
    model = evaluate.subject(classes.bundle, Table.read(classes.table)).predictor

    cases = model.explain(Table.read(classes.table).location(0))

    assert [case.finding for case in cases] == list(NAMES)
    assert sum(case.called for case in cases) == 1
    assert sum(case.probability for case in cases) == pytest.approx(1)
    assert max(cases, key=lambda case: case.probability).called


def test_the_report_of_classes_is_written_whole(result, tmp_path):
    wrong = next(case for case in result.cases if case.label == 0)

    page.write(tmp_path, replace(result, cases=(wrong,)))  # drawing cases takes longest

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = pd.read_csv(tmp_path / "performance_metrics.csv")
    long = pd.read_parquet(tmp_path / "predictions.parquet")
    assert "into one of 3 classes" in text
    assert f"{wrong.finding} called, probability" in text
    assert f"truth: {wrong.truth}" in text
    assert "threshold" not in text.split("</style>")[1]
    assert rows["Finding"].tolist() == [*NAMES, "Macro mean", "Micro mean"]
    assert rows["threshold"].isna().all()
    assert len(long) == 3 * len(result.images)
    assert (long.groupby("image")["decision"].agg(lambda calls: (calls == "present").sum()) == 1).all()
