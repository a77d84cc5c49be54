import numpy as np
import pytest

from hilum.bundle import read_bundle
from hilum.data.examples import load
from hilum.data.table import Table
from hilum.evaluation import cross_validated, evaluate
from hilum.evaluation.cross_validated import Repeat
from hilum.progress import Silent
from hilum.report.evaluation import fold_section as told


@pytest.fixture
def scored(classes, monkeypatch, tmp_path):
    """Two folds of the test part of three classes, both scored by one model, and its evaluation of that part."""
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    member, table = read_bundle(classes.bundle), Table.read(classes.table)
    manifest = member.manifest
    examples = load(table, manifest.task, manifest.input, watch=Silent())
    test = examples.table.frame["split"].to_numpy() == "test"
    fold = np.where(test, 1 + np.arange(len(test)) // 2 % 2, 0)
    found = cross_validated.evaluate(
        [Repeat((member, member), fold)], examples, replicates=100, seed=0, watch=Silent()
    )
    return found[0], evaluate.evaluate(evaluate.subject(classes.bundle, table), replicates=100)


def test_folds_of_one_model_score_as_that_model(scored):
    ours, whole = scored

    np.testing.assert_allclose(ours.probabilities, whole.probabilities, rtol=1e-6)
    assert ours.metrics["accuracy"] == whole.metrics["accuracy"]
    assert ours.decisions.sum() == len(ours.images)
    assert {case.called for case in ours.cases} == {True}
    np.testing.assert_equal(ours.metrics["subgroups"]["same"], whole.metrics["subgroups"]["same"])
    assert list(ours.metrics["subgroups"]["baseline"]) == list(ours.findings)


def test_of_classes_the_accuracy_is_told_by_fold(scored):
    ours, _ = scored
    grid = told.table(ours.folds)

    assert [column.name for column in grid.columns] == ["Images", "Patients", "AUROC", "Accuracy"]
    assert [row.images for row in ours.folds.rows] == [60, 60, 120]
    wanted = np.mean([row.figures["accuracy"].value for row in ours.folds.rows[:2]])
    assert ours.folds.mean_of_folds("accuracy") == pytest.approx(wanted)
    assert ours.folds.between_repeats("accuracy") is None
    assert not any("threshold" in warning for warning in map(str, ours.warnings))
    assert any("is in no fold" in warning for warning in map(str, ours.warnings))
