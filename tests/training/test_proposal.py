"""What is chosen for a table when nobody gives a recipe."""

from pathlib import Path

import numpy as np
import pytest

from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, RecipeError
from hilum.training.proposal import propose


def make_table(labels, findings, *, split="", patients=None, name="Klinik Süd 2024"):
    number = len(labels)
    frame = make_frame(
        image=[f"{row}.png" for row in range(number)],
        source=name,
        patient=patients or [str(row) for row in range(number)],
        findings=findings,
        labels=labels,
        split=split,
    )
    return Table(frame, findings, (Source(name, Path(), citation="", terms=""),))


ONE_OF_TWO = [[1.0, 0.0], [0.0, 1.0]] * 10


def test_one_finding_is_yes_or_no():
    recipe = propose(make_table([[1.0], [0.0]] * 10, ("Tuberkulose",))).recipe
    assert (recipe.task.kind, recipe.task.findings) == ("binary", ("Tuberkulose",))


def test_findings_that_exclude_each_other_are_classes():
    recipe = propose(make_table(ONE_OF_TWO, ("COVID", "Tuberkulose"))).recipe
    assert (recipe.task.kind, recipe.task.findings) == ("multiclass", ("COVID", "Tuberkulose"))


def test_images_without_any_of_the_classes_are_a_class():
    recipe = propose(make_table([*ONE_OF_TWO, [0.0, 0.0]], ("COVID", "Tuberkulose"))).recipe
    assert recipe.task.findings == ("No Finding", "COVID", "Tuberkulose")


@pytest.mark.parametrize("row", [[1.0, 1.0], [1.0, np.nan]])
def test_findings_that_may_go_together_stand_each_for_itself(row):
    recipe = propose(make_table([*ONE_OF_TWO, row], ("Mass", "Rundherd"))).recipe
    assert recipe.task.kind == "multilabel"


def test_parts_of_a_finding_are_left_out():
    labels = [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]] * 5
    proposal = propose(make_table(labels, ("Pneumonia", "Viral Pneumonia")))
    assert proposal.recipe.task.findings == ("Pneumonia",)
    assert "Viral Pneumonia left out, since Pneumonia covers them" in proposal.reasons


def test_a_finding_of_two_patients_is_left_out_by_name():
    labels = [[1.0, float(row < 2)] for row in range(10)] + [[0.0, 0.0]] * 10
    proposal = propose(make_table(labels, ("Mass", "Hernia")))
    assert proposal.recipe.task.findings == ("Mass",)
    assert any(reason.endswith("have or lack them: Hernia") for reason in proposal.reasons)


def test_no_finding_of_enough_patients_is_refused():
    with pytest.raises(DataError, match="no finding has 3 patients with it and 3 without"):
        propose(make_table([[1.0], [0.0]], ("Mass",)))


@pytest.mark.parametrize(
    ("patients", "method"), [(None, "folders"), ([str(row // 2) for row in range(20)], "patient")]
)
def test_a_test_of_the_source_is_kept_where_no_patient_is_in_both(patients, method):
    split = ["train", "test"] * 10
    recipe = propose(make_table([[1.0], [0.0]] * 10, ("Mass",), split=split, patients=patients)).recipe
    assert recipe.split.method == method


def test_the_network_of_few_images_is_frozen_and_of_many_not():
    few, many = ([[1.0], [0.0]] * number for number in (10, 600))
    assert propose(make_table(few, ("Mass",))).recipe.model.freeze == "backbone"
    assert propose(make_table(many, ("Mass",))).recipe.model.freeze == "none"


def test_a_rare_class_weighs_more():
    labels = [[1.0]] * 5 + [[0.0]] * 45
    assert propose(make_table(labels, ("Mass",))).recipe.balance.method == "class-weights"


def test_what_is_asked_for_is_not_chosen():
    changes = ["model.weights=none", "split.method=image", "task.findings=['Rundherd']", "train.epochs=2"]
    proposal = propose(make_table(ONE_OF_TWO, ("Mass", "Rundherd")), changes=changes)
    recipe = proposal.recipe
    assert (recipe.task.findings, recipe.split.method, recipe.model.freeze) == (
        ("Rundherd",),
        "image",
        "none",
    )
    assert recipe.train.epochs == 2
    assert not any("MobileNetV2" in reason or "split" in reason for reason in proposal.reasons)


def test_a_wrong_change_is_refused_as_in_a_recipe():
    with pytest.raises(RecipeError, match="epoch"):
        propose(make_table(ONE_OF_TWO, ("Mass", "Rundherd")), changes=["train.epoch=2"])


def test_the_name_is_one_that_a_recipe_may_have():
    assert propose(make_table([[1.0], [0.0]] * 10, ("Mass",))).recipe.name == "Klinik-S-d-2024"


def test_a_proposal_written_down_is_the_same_recipe(tmp_path):
    from hilum.recipe import load_recipe

    recipe = propose(make_table(ONE_OF_TWO, ('50 % "größer"', "Rundherd"))).recipe
    (tmp_path / "my.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(tmp_path / "my.toml") == recipe
