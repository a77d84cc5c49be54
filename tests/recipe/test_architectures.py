import pytest

from hilum.errors import UsageError
from hilum.recipe import architectures
from hilum.recipe.architectures import ARCHITECTURES, ENGINES, architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_name_leads_to_its_architecture_and_an_engine(name):
    found = architecture(name)

    assert found.name == name
    assert found.engines
    assert set(found.engines) <= set(ENGINES)
    assert 32 <= found.input_size <= 2048
    assert found.paper


@pytest.mark.parametrize("model", ["regnety_002", "regnety_002.pycls_in1k", "vit_small_patch16_224.dino"])
def test_any_model_of_timm_is_an_architecture_of_the_torch_engine(model):
    found = architecture(f"timm:{model}", "torch")

    assert found.name == f"timm:{model}"
    assert found.engines == {"torch": model}


@pytest.mark.parametrize(
    "model", ["", "ResNet18", "hf-hub:somebody/something", "../resnet18", "resnet18.", "a b"]
)
def test_what_cannot_be_a_name_of_timms_is_refused(model):
    with pytest.raises(UsageError, match=r"does not name a model of timm's; .* like timm:regnety_002"):
        architecture(f"timm:{model}")


def test_an_unknown_name_lists_the_known_ones_nearest_first():
    with pytest.raises(UsageError, match=r"'densnet121' .*: densenet121 \(did you mean it\?\), .*vit_small"):
        architecture("densnet121")


@pytest.mark.parametrize("name", ["resnet18", "timm:regnety_002"])
def test_an_engine_that_lacks_it_is_named(name):
    with pytest.raises(UsageError, match="the abacus engine has no architecture"):
        architecture(name, "abacus")


@pytest.mark.parametrize(
    ("recipe", "network", "title"),
    [
        ("kermany-densenet121", "densenet121", "kermany-densenet121"),
        (
            "kermany-densenet121",
            "custom_cnn",
            "kermany-densenet121, changed: model.architecture = custom_cnn",
        ),
        ("kermany-custom-cnn", "custom_cnn", "kermany-custom-cnn"),
        ("kermany-custom-cnn", "vgg16", "kermany-custom-cnn, changed: model.architecture = vgg16"),
        ("mine", "timm:regnety_002", "mine (timm:regnety_002)"),
    ],
)
def test_a_title_names_no_other_network_than_the_recipes_own(recipe, network, title):
    assert architectures.title(recipe, network) == title
