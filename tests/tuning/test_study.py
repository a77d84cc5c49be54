import pandas as pd
import pytest
from hypothesis import given, strategies as st

from hilum.errors import RecipeError, UsageError
from hilum.recipe import load_recipe
from hilum.tuning.study import Study, changed, dimensions, grid, parse_vary

DEMO = load_recipe("demo")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.learning_rate=1e-5,1e-4,1e-3", [1e-5, 1e-4, 1e-3]),
        ("train.batch_size=16, 32", [16, 32]),
        ("train.optimizer=adam,sgd", ["adam", "sgd"]),
        ("model.hidden=[64],[128, 64]", [[64], [128, 64]]),
        ("augment.flip=true,false", [True, False]),
        ("model.dropout=0.2..0.7", (0.2, 0.7)),
        ("train.learning_rate=1e-5..1e-2:log", (1e-5, 1e-2, "log")),
        ("train.epochs=3..9", (3, 9)),
    ],
)
def test_what_the_command_line_says_is_read(text, expected):
    key = text.partition("=")[0]

    found = parse_vary([text])

    assert found == {key: expected}
    assert type(found[key]) is type(expected)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["train.learning_rate"], "not of the form KEY=a,b,c"),
        (["model.dropout=0.2..high"], "a range goes between two numbers"),
        (["model.dropout=0.2..0.7:ln"], "only log is known"),
        (["model.dropout=0.2", "model.dropout=0.3"], "comes twice"),
    ],
)
def test_what_it_cannot_read_is_refused_in_words(texts, words):
    with pytest.raises(UsageError, match=words):
        parse_vary(texts)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (
            {"train.learning_rat": [1e-3]},
            r"unknown key 'train.learning_rat'.*did you mean train.learning_rate",
        ),
        ({"learning_rate": [1e-3]}, "did you mean train.learning_rate"),
        ({"nothing.at_all": [1]}, "unknown key 'nothing.at_all'; `hilum recipes --keys` lists all"),
        ({"train.batch_size": [16, 1]}, "train.batch_size: should be greater than or equal to 2"),
        ({"model.dropout": (0.2, 1.5)}, "model.dropout: should be less than 1"),
        ({"model.dropout": (0.7, 0.2)}, "lower end comes first"),
        ({"train.batch_size": (8, 16.5)}, "whole numbers"),
        ({"model.dropout": (0.0, 0.5, "log")}, "begin above 0"),
        ({"augment.flip": (0, 1)}, "a range goes between two numbers"),
        ({"train.optimizer": ["adam", "adam"]}, "stands twice"),
        ({"train.optimizer": ["adam", "sgd"]}, "weight_decay goes with"),
        ({"split.seed": [0, 1]}, "cannot be varied: trials would be compared on different validation"),
        ({"data.size": [64, 128]}, "cannot be varied"),
        ({"train.monitor": ["val_loss", "val_f1"]}, "cannot be varied"),
        ({"train.epochs": []}, "no choice"),
        ({"train.epochs": 3}, "neither a list of choices nor a range"),
        ({}, "nothing is varied"),
    ],
)
def test_what_does_not_fit_the_recipe_is_refused_before_anything_runs(vary, words):
    with pytest.raises(UsageError, match=words):
        dimensions(DEMO, vary, search="tpe")


def test_values_that_only_go_together_are_checked_together():
    base = load_recipe("demo", ["train.optimizer=adam", "train.weight_decay=0"])

    found = dimensions(
        base, {"train.optimizer": ["sgd", "adamw"], "train.weight_decay": [0.0, 1e-4]}, search="grid"
    )
    assert len(list(grid(found))) == 4
    with pytest.raises(RecipeError, match=r"weight_decay goes with .*with train\.optimizer=adam"):
        dimensions(
            base, {"train.optimizer": ["adam", "sgd"], "train.weight_decay": [0.0, 1e-4]}, search="grid"
        )


def test_losses_are_not_compared_by_their_own_value():
    base = load_recipe("demo", ["train.monitor=val_loss"])

    with pytest.raises(RecipeError, match="changes what val_loss measures"):
        dimensions(base, {"train.loss": ["bce", "focal"]}, search="grid")
    assert dimensions(DEMO, {"train.loss": ["bce", "focal"]}, search="grid")


def test_a_grid_takes_choices():
    with pytest.raises(UsageError, match="use --search tpe"):
        dimensions(DEMO, {"model.dropout": (0.2, 0.5)}, search="grid")
    with pytest.raises(UsageError, match=r"no search 'random'"):
        dimensions(DEMO, {"model.dropout": [0.2]}, search="random")


def test_rates_are_searched_by_their_logarithm_and_counts_in_whole_numbers():
    rate, dropout, epochs, decay = dimensions(
        DEMO,
        {
            "train.learning_rate": (1e-5, 1e-2),
            "model.dropout": (0.2, 0.5),
            "train.epochs": (2, 9),
            "train.weight_decay": (0, 1e-3),
        },
        search="tpe",
    )

    assert rate.log
    assert not dropout.log
    assert not decay.log, "the logarithm of 0 does not exist"
    assert epochs.whole
    assert not rate.whole
    assert epochs.corners == (2, 9)


@given(
    st.lists(st.integers(2, 64), min_size=1, max_size=4, unique=True),
    st.sets(st.sampled_from([0.0, 0.3, 0.5]), min_size=1),
)
def test_a_grid_has_every_combination_once_and_each_is_a_recipe(sizes, dropouts):
    found = dimensions(DEMO, {"train.batch_size": sizes, "model.dropout": list(dropouts)}, search="grid")

    points = list(grid(found))

    assert len({tuple(point.items()) for point in points}) == len(points) == len(sizes) * len(dropouts)
    for point in points:
        flat = changed(DEMO, point).flat()
        assert {key: flat[key] for key in point} == point
        assert {key: value for key, value in flat.items() if key not in point} == {
            key: value for key, value in DEMO.flat().items() if key not in point
        }


def test_the_best_is_the_first_of_equals_by_the_monitored_figure(tmp_path):
    trials = pd.DataFrame(
        {
            "trial": [1, 2, 3, 4],
            "state": ["complete", "pruned", "complete", "complete"],
            "value": [0.7, 0.9, 0.8, 0.8],
            "train.batch_size": [8, 16, 32, 64],
        }
    )
    found = dimensions(DEMO, {"train.batch_size": [8, 16, 32, 64]}, search="grid")

    def best(base):
        return Study(tmp_path, base, found, "grid", "torch", 4, trials, {}, 0, {}, {}).best.train.batch_size

    assert best(DEMO) == 32
    assert best(load_recipe("demo", ["train.monitor=val_loss"])) == 8
