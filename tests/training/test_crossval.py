import json
import shutil

import numpy as np
import pandas as pd
import pytest

from hilum.bundle import read_bundle
from hilum.data import phantom
from hilum.data.table import Table
from hilum.errors import DataError, RecipeError, UsageError
from hilum.evaluation import evaluate
from hilum.recipe import load_recipe
from hilum.report.evaluation import fold_section as told_of_folds, page, tables
from hilum.training import crossval
from hilum.training.crossval import FoldPlan, cross_validate

SMALL = [
    "model.architecture=custom_cnn",
    "model.weights=none",
    "model.freeze=none",
    "model.hidden=[8]",
    "data.size=32",
    "train.epochs=1",
    "task.findings=['Lung Opacity']",
    "task.negatives=all-others",
    "split.val=0.2",
    "split.method=folders",
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Phantoms of which a quarter of the patients is the source's own test."""
    drawn = phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=100, size=64, seed=12)
    patients = drawn.frame["patient"]
    own = patients.isin(sorted(set(patients))[::4])
    return drawn.with_split(np.where(own, "test", "train").tolist())


@pytest.fixture(scope="module")
def settings():
    return load_recipe("kermany-densenet121", SMALL)


@pytest.fixture(scope="module")
def result(tmp_path_factory, table, settings):
    folder = tmp_path_factory.mktemp("runs") / "cv"
    return cross_validate(settings, table, folder, plan=FoldPlan(2, 2), replicates=100)


def test_every_image_is_scored_once_a_repeat_by_a_model_that_never_saw_its_patient(result, table):
    expected = set(table.frame["image"][table.frame["split"] == "train"])

    assert [one.folder.parent.relative_to(result.folder).as_posix() for one in result.bundles] == [
        "repeat-1/fold-1", "repeat-1/fold-2", "repeat-2/fold-1", "repeat-2/fold-2",
    ]  # fmt: skip
    for evaluation in result.evaluations:
        assert len(evaluation.images) == len(expected)
        assert set(evaluation.images) == expected
    for one in result.bundles:
        frame = Table.read(one.folder.parent / "table.parquet").frame
        assert frame[frame["split"] != ""].groupby("patient")["split"].nunique().max() == 1


def test_the_figures_are_those_of_each_folds_own_bundle(result):
    fold = result.bundles[0].folder.parent
    own = evaluate.evaluate(evaluate.subject(fold), replicates=100)

    places = pd.Index(result.evaluation.images).get_indexer(pd.Index(own.images))
    np.testing.assert_allclose(result.evaluation.probabilities[places], own.probabilities, rtol=1e-5)
    row = result.evaluation.folds.rows[0]
    assert (row.repeat, row.fold, row.images) == (1, 1, len(own.images))
    assert row.figures["auroc"].value == pytest.approx(
        own.metrics["findings"]["Lung Opacity"]["auroc"]["value"]
    )
    assert row.figures["sensitivity"].value == own.metrics["findings"]["Lung Opacity"]["sensitivity"]["value"]


def test_repeats_are_drawn_anew_and_their_spread_is_told(result):
    folds = result.evaluation.folds
    wholes = [row.figures["auroc"].value for row in folds.rows if row.fold == 0]
    first, second = (Table.read(result.bundles[place].folder.parent / "table.parquet") for place in (0, 2))

    assert (first.frame["split"] != second.frame["split"]).any()
    assert [(row.repeat, row.fold) for row in folds.rows] == [(1, 1), (1, 2), (1, 0), (2, 1), (2, 2), (2, 0)]
    assert folds.mean_of_repeats("auroc") == pytest.approx(np.mean(wholes))
    assert folds.between_repeats("auroc") == pytest.approx(np.std(wholes, ddof=1))
    single = np.array([row.figures["auroc"].value for row in folds.rows if row.fold]).reshape(2, 2)
    assert folds.between_folds("auroc") == pytest.approx(np.sqrt(single.var(axis=1, ddof=1).mean()))
    assert json.loads(json.dumps(result.evaluation.metrics))["folds"]["between_folds"]["auroc"] is not None


def test_the_spread_is_called_no_standard_error(result):
    section = told_of_folds.section(result.evaluation)

    assert "standard error" in section.blocks[1].note
    assert len(section.tables[0].rows) == 6 + 4
    assert section.tables[0].rows[-1][0] == "SD between repeats"
    assert "in single folds" in section.plots[0].title


@pytest.mark.slow
def test_the_page_tells_of_the_folds(result, tmp_path):
    report = page.write(tmp_path / "evaluation", result.evaluation).read_text()

    assert "SD between repeats" in report
    assert "out-of-fold predictions" in report
    assert (tmp_path / "evaluation" / "plots" / "folds.png").is_file()
    assert "SD between folds" in (tmp_path / "evaluation" / "model_card.md").read_text()


def test_the_ensemble_is_tested_on_the_sources_own_test_and_on_nothing_else(result, table):
    tested = evaluate.evaluate(evaluate.subject(result.folder / "ensemble"), replicates=100)

    expected = set(table.frame["image"][table.frame["split"] == "test"])
    assert set(tested.images) == expected
    assert tested.test_reads == 1
    assert "neither trained nor tuned" in tested.split_description
    again = evaluate.evaluate(evaluate.subject(result.folder / "ensemble" / "bundle", table), replicates=100)
    assert set(again.images) == expected
    assert {member.hash for member in result.ensemble.manifest.members} == {
        one.hash for one in result.bundles[:2]
    }


def test_it_goes_on_after_a_kill_to_the_same_bits(result, table, settings, tmp_path, monkeypatch):
    train = crossval.train

    def killed(recipe_, *arguments, **options):
        if recipe_.split.fold == 2:
            raise KeyboardInterrupt
        return train(recipe_, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(crossval, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(settings, table, tmp_path / "cv", plan=FoldPlan(2), replicates=100)
    first = read_bundle(tmp_path / "cv" / "fold-1")

    whole = cross_validate(settings, table, tmp_path / "cv", plan=FoldPlan(2), replicates=100)

    assert whole.bundles[0].hash == first.hash
    assert [one.graph for one in whole.bundles] == [one.graph for one in result.bundles[:2]]
    assert whole.ensemble.graph == result.ensemble.graph
    pd.testing.assert_frame_equal(tables.predictions(whole.evaluation), tables.predictions(result.evaluation))
    # As if killed after the last epoch and before the bundle was sealed: the fold is resumed, the other kept.
    shutil.rmtree(whole.bundles[0].folder)
    monkeypatch.setattr(crossval, "train", killed)
    once_more = cross_validate(settings, table, tmp_path / "cv", plan=FoldPlan(2), replicates=100)
    assert once_more.bundles[0].graph == first.graph
    assert once_more.bundles[1].hash == whole.bundles[1].hash
    assert {one.hash for one in once_more.ensemble.manifest.members} == {
        one.hash for one in once_more.bundles
    }


def test_another_recipe_number_or_table_is_refused(result, table, settings):
    other = load_recipe("kermany-densenet121", [*SMALL, "train.learning_rate=0.5"])

    with pytest.raises(RecipeError, match=r"begun with train.learning_rate = 0.0001, not 0.5"):
        cross_validate(other, table, result.folder, plan=FoldPlan(2, 2))
    with pytest.raises(UsageError, match="begun with folds 2, not 3"):
        cross_validate(settings, table, result.folder, plan=FoldPlan(3, 2))
    with pytest.raises(UsageError, match="other images or labels"):
        cross_validate(settings, table.select(np.arange(len(table)) > 0), result.folder, plan=FoldPlan(2, 2))


def test_what_cannot_be_is_refused_before_anything_is_written(table, settings, tmp_path):
    by_image = load_recipe("kermany-densenet121", [*SMALL, "split.method=image"])
    of_a_fold = load_recipe("kermany-densenet121", [*SMALL, "split.folds=3"])

    with pytest.raises(UsageError, match="1 folds, 1 repeats"):
        cross_validate(settings, table, tmp_path / "cv", plan=FoldPlan(1))
    with pytest.raises(RecipeError, match="drawn by patient"):
        cross_validate(by_image, table, tmp_path / "cv")
    with pytest.raises(RecipeError, match=r"sets split\.folds"):
        cross_validate(of_a_fold, table, tmp_path / "cv")
    leaking = table.with_split((["train", "test"] * len(table))[: len(table)])
    with pytest.raises(DataError, match="the source's own test leaks"):
        cross_validate(settings, leaking, tmp_path / "cv")
    assert not (tmp_path / "cv").exists()
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "letter.txt").write_text("dear reader")
    with pytest.raises(UsageError, match="already holds something else"):
        cross_validate(settings, table, tmp_path / "cv")


@pytest.mark.slow
def test_a_leak_that_is_allowed_once_is_told_in_the_report_and_by_the_ensemble(table, settings, tmp_path):
    parts = table.frame["split"].to_numpy(object)
    parts[np.flatnonzero(parts == "test")[0]] = "train"
    leaking = table.with_split(parts.tolist())
    with pytest.raises(
        DataError, match=r"own test leaks: 1 patient is in more than one part.*--allow-leak goes on"
    ):
        cross_validate(settings, leaking, tmp_path / "cv", plan=FoldPlan(2), replicates=100)

    first = cross_validate(
        settings, leaking, tmp_path / "cv", plan=FoldPlan(2), replicates=100, allow_leak=True
    )
    again = cross_validate(settings, leaking, tmp_path / "cv", plan=FoldPlan(2), replicates=100)

    assert again.ensemble.hash == first.ensemble.hash
    assert [one.hash for one in again.bundles] == [one.hash for one in first.bundles]
    told = again.ensemble.manifest.training
    assert told.leaky
    assert "patient is in more than one part" in told.leaks[0]
    assert any(told.leaks[0] in warning for warning in map(str, again.evaluation.warnings))
    assert not any(one.manifest.training.leaky for one in again.bundles)
    tested = evaluate.evaluate(evaluate.subject(tmp_path / "cv" / "ensemble"), replicates=100)
    assert told.leaks[0] in tested.warnings[0].text
