import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from hilum.engines.policy import Policy, validation_auroc
from hilum.recipe import TrainSettings


def run(losses, **settings):
    policy = Policy.of(TrainSettings(**{"epochs": 100, "learning_rate": 1.0, **settings}))
    return policy, [policy.step(val_loss=loss, val_auroc=math.nan) for loss in losses]


def test_best_epoch_is_the_first_of_equal_ones():
    policy, decisions = run([3.0, 1.0, 1.0, 2.0])

    assert policy.best_epoch == 2
    assert [decision.best for decision in decisions] == [True, True, False, False]


def test_stops_after_patience_epochs_without_a_better_one():
    _, decisions = run([3.0, 2.0, 2.5, 2.5, 2.5], patience=3, plateau_patience=0)

    assert [decision.stop for decision in decisions] == [False, False, False, False, True]


def test_learning_rate_halves_on_each_plateau():
    policy = Policy.of(TrainSettings(learning_rate=1.0, patience=0, plateau_patience=2, plateau_factor=0.5))
    rates = []
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0):
        policy.step(val_loss=loss, val_auroc=math.nan)
        rates.append(policy.learning_rate_at(0.5))

    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_loss_that_is_not_a_number_is_never_best():
    policy, _ = run([math.nan, 1.0, math.nan])

    assert policy.best_epoch == 2


def test_auroc_is_better_when_larger():
    policy = Policy.of(TrainSettings(monitor="val_auroc"))
    for auroc in (0.6, 0.8, 0.7):
        policy.step(val_loss=0.0, val_auroc=auroc)

    assert policy.best_epoch == 2


@given(st.lists(st.floats(0, 10), min_size=2, max_size=30), st.integers(1, 29))
def test_a_policy_restored_from_its_state_decides_as_one_that_went_on(losses, cut):
    whole, decisions = run(losses, patience=5)
    first, _ = run(losses[:cut], patience=5)
    restored = Policy(**first.state())

    rest = [restored.step(val_loss=loss, val_auroc=math.nan) for loss in losses[cut:]]

    assert rest == decisions[cut:]
    assert restored.state() == whole.state()


@given(
    hnp.arrays(np.float32, (40, 3), elements=st.sampled_from([0.0, 1.0, math.nan])),
    hnp.arrays(np.float32, (40, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
)
def test_validation_auroc_agrees_with_scikit_learn(labels, scores):
    areas = []
    for truth, values in zip(labels.T, scores.T, strict=True):
        known = ~np.isnan(truth)
        if len(np.unique(truth[known])) == 2:
            areas.append(roc_auc_score(truth[known], values[known]))

    found = validation_auroc(labels, scores)

    if areas:
        assert found == pytest.approx(np.mean(areas), abs=1e-12)
    else:
        assert math.isnan(found)


def test_cosine_rises_over_the_warm_up_and_falls_to_nothing():
    policy = Policy.of(
        TrainSettings(learning_rate=1.0, epochs=10, patience=0, schedule="cosine", warm_up=0.2)
    )
    rates = []
    for _ in range(10):
        rates += [policy.learning_rate_at(0.0), policy.learning_rate_at(0.5)]
        policy.step(val_loss=1.0, val_auroc=math.nan)

    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5), "half of the fall is done at six tenths"
    assert rates[-1] < 0.02
    assert np.diff(rates[:5]).min() > 0 > np.diff(rates[4:]).max()
