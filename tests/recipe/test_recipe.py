from typing import get_args

import pytest
from hypothesis import given, strategies as st

from hilum.errors import RecipeError
from hilum.recipe import Recipe, Task, general_recipes, load_recipe, parse_recipe, shipped_recipes
from hilum.recipe.findings import NIH_FINDINGS


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_survives_a_round_trip_through_toml(name, tmp_path):
    original = load_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(original.to_toml())

    assert load_recipe(path) == original
    assert original.name == name


@given(description=st.text(st.characters(exclude_categories=["Cs", "Cc"])), rate=st.floats(1e-9, 10))
def test_any_text_and_number_survives_a_round_trip(tmp_path_factory, description, rate):
    values = {
        "name": "r",
        "description": description,
        "task": {"findings": ["Pneumonia"]},
        "train": {"learning_rate": rate},
    }
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    original = parse_recipe(values)
    path.write_text(original.to_toml(), encoding="utf-8")

    assert load_recipe(path) == original


PNEUMONIA_OR_NOTHING = {
    "task.kind": "binary",
    "task.findings": ["Pneumonia"],
    "task.negatives": "no-finding",
    "train.optimizer": "adam",
    "train.learning_rate": 1e-4,
}
DENSENET_HEAD = {
    "model.architecture": "densenet121",
    "model.weights": "imagenet",
    "model.freeze": "backbone",
    "model.pool": "average",
    "model.hidden": [128],
    "model.activation": "relu",
    "model.dropout": 0.5,
}
TURNED_SHIFTED_MIRRORED = {
    "augment.rotation": 20,
    "augment.shift": 0.2,
    "augment.shear": 10,
    "augment.zoom": 0.2,
    "augment.flip": True,
    "train.batch_size": 32,
    "train.epochs": 30,
    "train.patience": 10,
    "train.plateau_patience": 5,
    "train.plateau_factor": 0.5,
    "train.keep_final": True,
    "balance.method": "class-weights",
    "model.pool": "flatten",
    "model.dropout": 0.5,
}
PUBLISHED = {
    "nih-pneumonia": {
        **PNEUMONIA_OR_NOTHING,
        **DENSENET_HEAD,
        "data.size": 224,
        "model.l2": 1e-4,
        "balance.method": "downsample",
        "balance.number": 1450,
        "train.schedule": "plateau",
        "train.unfreeze_after": 5,
        "train.backbone_rate": 0.1,
    },
    "kermany-densenet121": {
        **PNEUMONIA_OR_NOTHING,
        **DENSENET_HEAD,
        "data.size": 224,
        "balance.method": "class-weights",
        "train.schedule": "plateau",
    },
    "nih-infiltration": {
        "task.findings": ["Infiltration"],
        "task.negatives": "all-others",
        "model.architecture": "mobilenetv2",
        "model.weights": "imagenet",
        "model.freeze": "backbone",
        "model.pool": "average",
        "model.hidden": [64],
        "model.activation": "relu",
        "train.optimizer": "adam",
        "train.learning_rate": 1e-3,
        "train.loss": "auto",
    },
    "kermany-vgg16": {
        **PNEUMONIA_OR_NOTHING,
        **TURNED_SHIFTED_MIRRORED,
        "model.architecture": "vgg16",
        "model.weights": "imagenet",
        "model.freeze": "backbone",
        "model.hidden": [512],
    },
    "kermany-custom-cnn": {
        **PNEUMONIA_OR_NOTHING,
        **TURNED_SHIFTED_MIRRORED,
        "model.architecture": "custom_cnn",
        "model.weights": "none",
        "model.hidden": [512, 256],
    },
    "nih-multilabel": {"task.kind": "multilabel", "task.findings": list(NIH_FINDINGS), "train.loss": "auto"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_the_published_notebook_trained(name):
    flat = load_recipe(name).flat()

    assert {key: flat[key] for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize(
    "change",
    [
        "data.size=320",
        "model.architecture=densenet169",
        "model.architecture=efficientnet_b0",
        "model.architecture=resnet50",
        "model.pool=max",
        "model.block=cbam",
        "balance.method=oversample",
        "train.loss=focal",
        "model.freeze=0.5",
        "split.method=given",
        "split.method=image",
        "model.scaling=unit",
        "augment.flip=true",
        "augment.brightness=0.2",
    ],
)
def test_what_published_notebooks_suggest_to_change_is_one_key(change):
    before, after = (
        load_recipe("kermany-densenet121").flat(),
        load_recipe("kermany-densenet121", [change]).flat(),
    )

    key, _, value = change.partition("=")
    assert str(after[key]).lower() == value
    assert {name for name in after if after[name] != before[name]} <= {key}


def test_set_changes_a_key():
    changed = load_recipe(
        "kermany-densenet121", ["train.epochs=3", "model.architecture=resnet18", "model.hidden=[]"]
    )

    assert (changed.train.epochs, changed.model.architecture, changed.model.hidden) == (3, "resnet18", ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "train.epoch=3",
            ["unknown key 'train.epoch'; did you mean train.epochs? `hilum recipes --keys` lists all"],
        ),
        ("trian.epochs=3", ["unknown key 'trian.epochs'; did you mean train.epochs?"]),
        ("train.epochs=many", ["train.epochs: should be a whole number (got 'many')"]),
        ("train.epochs=1.5", ["train.epochs: should be a whole number (got 1.5)"]),
        ("train.learning_rate=fast", ["train.learning_rate: should be a number (got 'fast')"]),
        ("train.keep_final=perhaps", ["train.keep_final: should be true or false (got 'perhaps')"]),
        ("train=3", ["train: should be a section with keys of its own (got 3)"]),
        ("model.weights=3", ["model.weights: should be text (got 3)"]),
        ("epochs=3", ["unknown key 'epochs'; did you mean train.epochs?"]),
        ("epoch=3", ["did you mean train.epochs?"]),
        ("model.epochs=3", ["did you mean train.epochs?"]),
        ("trian.seed=3", ["unknown key 'trian.seed'; did you mean train.seed?"]),
        ("nmae=x", ["unknown key 'nmae'; did you mean name?"]),
        ("train.zzz=3", ["unknown key 'train.zzz'; `hilum recipes --keys` lists all"]),
        ("qqq.zzz=3", ["unknown key 'qqq.zzz'; `hilum recipes --keys` lists all"]),
        ("seed=3", ["did you mean split.seed or train.seed?"]),
        (
            "task.findings=Infiltraton",
            ["(got 'Infiltraton'); a list is written", "'task.findings=[\"Infiltration\"]'"],
        ),
        ("task.findings=[mass, Nodule]", ['\'task.findings=["Mass", "Nodule"]\'']),
        ("model.hidden=256", ["model.hidden: should be a list (got 256)", "'model.hidden=[256]'"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1"]),
        ("model.architecture=densnet121", ["densnet121", "densenet121 (did you mean it?)"]),
        ("task.findings=['']", ["task.findings", "holds an empty name"]),
        ("task.findings=['Pneumonia','Mass']", ["binary", "multilabel"]),
        ("model.weights=none", ["random features", "model.freeze=none"]),
        ("train.weight_decay=0.1", ["adamw"]),
        ("split.val=0.9", ["leaves nothing to train on"]),
        ("model.freeze=1.5", ["model.freeze", "'backbone', 'none' or a number between 0 and 1", "1.5"]),
        ("model.freeze=true", ["model.freeze", "'backbone', 'none' or a number"]),
        ("model.pool=avg", ["model.pool", "'average', 'max', 'attention' or 'flatten'", "'avg'"]),
        ("model.block=cbm", ["model.block", "'none', 'se' or 'cbam'"]),
        ("model.activation=swish", ["model.activation", "'silu'"]),
        ("model.backbone_dropout=0.2", ["custom_cnn"]),
        ("train.loss=softmax", ["exactly one class an image", "binary"]),
        ("train.loss=crossentropy", ["train.loss", "'bce'", "'focal'"]),
        ("train.monitor=val_auc", ["train.monitor", "'val_auroc'"]),
        ("train.schedule=onecycle", ["train.schedule", "'one-cycle'"]),
        ("train.ema=1", ["train.ema", "less than 1"]),
        ("train.accumulate=0", ["train.accumulate", "greater than or equal to 1"]),
        ("balance.method=upsample", ["balance.method", "'oversample'"]),
        ("balance.number=100", ["downsample"]),
        ("augment.mixup=-1", ["augment.mixup", "greater than or equal to 0"]),
        ("task.findings=['No Finding']", ["not a finding", "multiclass"]),
        ("task.kind=multiclass", ["multiclass", "two classes"]),
        ("train", ["section.key=value"]),
        ("a.b.c=1", ["section.key=value"]),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_what_would_be_right(change, words):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("kermany-densenet121", [change])

    assert "Value error" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["balance.method=oversample"], ["oversample", "multilabel", "positive-weights"]),
        (["balance.method=downsample"], ["downsample", "multilabel"]),
        (["train.loss=softmax"], ["softmax", "multilabel", "'bce'"]),
        (["train.unfreeze_after=3"], ["unfreeze_after", "model.freeze=backbone"]),
        (["task.kind=multiclass", "train.loss=bce"], ["bce", "multiclass", "'softmax'"]),
        (["task.kind=multiclass", "train.loss=asymmetric"], ["asymmetric", "multiclass", "'focal'"]),
        (["task.kind=multiclass", "balance.method=positive-weights"], ["positive-weights", "class-weights"]),
        (["model.freeze=0.5", "model.weights=none"], ["0.5", "random features", "model.freeze=none"]),
    ],
)
def test_sections_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("nih-multilabel", changes)

    for word in words:
        assert word in str(refusal.value)


def test_an_unknown_recipe_lists_those_shipped():
    with pytest.raises(RecipeError, match=r"kermany-densenet121 \(did you mean it\?\)"):
        load_recipe("kermany-densenet")


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("name = ")

    with pytest.raises(RecipeError, match="not TOML"):
        load_recipe(path)


def test_every_setting_has_a_sentence():
    for section in Recipe.model_fields.values():
        fields = getattr(section.annotation, "model_fields", {})
        for name, field in fields.items():
            assert field.description, f"{section.annotation.__name__}.{name} says nothing of itself"


def test_a_finding_that_no_vocabulary_knows_can_be_asked_for():
    recipe = load_recipe("kermany-densenet121", ["task.findings=['Rundherd größer 3 cm']"])
    assert recipe.task.findings == ("Rundherd größer 3 cm",)


@pytest.mark.parametrize("kind", general_recipes())
def test_a_general_recipe_lacks_the_findings_only(kind):
    with pytest.raises(RecipeError, match=f"the recipe {kind} is for the findings of any data"):
        load_recipe(kind)
    findings = ["A", "B"][: 1 if kind == "binary" else 2]
    assert load_recipe(kind, [f"task.findings={findings}"]).task.kind == kind


def test_there_is_a_general_recipe_for_each_kind_of_task():
    assert set(general_recipes()) == set(get_args(Task.model_fields["kind"].annotation))
