import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hilum.engines.policy import Policy
from hilum.recipe import load_recipe


def run(losses, **settings):
    policy = make(**{"epochs": 100, "learning_rate": 1.0, **settings})
    return policy, [policy.step(figures(loss)) for loss in losses]


def make(freeze="none", **settings):
    changes = [f"train.{key}={value}" for key, value in settings.items()]
    return Policy.of(load_recipe("kermany-densenet121", [f"model.freeze={freeze}", *changes]))


def figures(loss=1.0, auroc=math.nan):
    return {"val_loss": loss, "val_auroc": auroc}


def test_best_epoch_is_the_first_of_equal_ones():
    policy, decisions = run([3.0, 1.0, 1.0, 2.0])

    assert policy.best_epoch == 2
    assert [decision.best for decision in decisions] == [True, True, False, False]


def test_stops_after_patience_epochs_without_a_better_one():
    _, decisions = run([3.0, 2.0, 2.5, 2.5, 2.5], patience=3, plateau_patience=0)

    assert [decision.stop for decision in decisions] == [False, False, False, False, True]


def test_learning_rate_halves_on_each_plateau():
    policy = make(learning_rate=1.0, patience=0, plateau_patience=2, plateau_factor=0.5)
    rates = []
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0):
        policy.step(figures(loss))
        rates.append(policy.learning_rate_at(0.5))

    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_loss_that_is_not_a_number_is_never_best():
    policy, _ = run([math.nan, 1.0, math.nan])

    assert policy.best_epoch == 2


def test_auroc_is_better_when_larger():
    policy = make(monitor="val_auroc")
    for auroc in (0.6, 0.8, 0.7):
        policy.step(figures(0.0, auroc))

    assert policy.best_epoch == 2


@given(st.lists(st.floats(0, 10), min_size=2, max_size=30), st.integers(1, 29))
def test_a_policy_restored_from_its_state_decides_as_one_that_went_on(losses, cut):
    whole, decisions = run(losses, patience=5)
    first, _ = run(losses[:cut], patience=5)
    restored = Policy(**first.state())

    rest = [restored.step(figures(loss)) for loss in losses[cut:]]

    assert rest == decisions[cut:]
    assert restored.state() == whole.state()


def test_cosine_rises_over_the_warm_up_and_falls_to_nothing():
    policy = make(learning_rate=1.0, epochs=10, patience=0, schedule="cosine", warm_up=0.2)
    rates = []
    for _ in range(10):
        rates += [policy.learning_rate_at(0.0), policy.learning_rate_at(0.5)]
        policy.step(figures())

    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5), "half of the fall is done at six tenths"
    assert rates[-1] < 0.02
    assert np.diff(rates[:5]).min() > 0 > np.diff(rates[4:]).max()


def test_one_cycle_rises_and_falls_while_momentum_does_the_opposite():
    policy = make(learning_rate=1.0, epochs=10, patience=0, schedule="one-cycle", warm_up=0.3)
    rates, momenta = [], []
    for _ in range(10):
        rates += [policy.learning_rate_at(0.0), policy.learning_rate_at(0.5)]
        momenta += [policy.momentum_at(0.0), policy.momentum_at(0.5)]
        policy.step(figures())

    assert rates[0] == pytest.approx(0.04)
    assert rates[6] == max(rates) == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.02
    assert momenta[0] == pytest.approx(0.95)
    assert momenta[6] == min(momenta) == pytest.approx(0.85)
    assert np.all(np.sign(np.diff(rates)) == -np.sign(np.diff(momenta)))


def test_other_schedules_leave_momentum_alone_and_constant_leaves_the_rate():
    policy = make(learning_rate=0.3, epochs=5, patience=0, schedule="constant")
    for _ in range(4):
        policy.step(figures())

    assert policy.learning_rate_at(0.9) == 0.3
    assert policy.momentum_at(0.9) is None


def test_any_validation_figure_can_decide():
    policy = make(monitor="val_f1", patience=0)
    for value in (0.2, 0.9, 0.5):
        policy.step({**figures(), "val_f1": value})

    assert policy.best_epoch == 2


def test_layers_thaw_after_their_epochs_in_equal_steps_from_the_head():
    policy = make(
        freeze="backbone", epochs=10, patience=0, unfreeze_after=2, unfreeze_steps=3, unfreeze_share=0.6
    )
    shares = []
    for _ in range(7):
        shares.append(round(policy.frozen_share, 6))
        policy.step(figures())

    assert shares == [1.0, 1.0, 0.8, 0.6, 0.4, 0.4, 0.4]


def test_a_share_that_is_frozen_less_than_thawing_asks_for_stays():
    policy = make(freeze=0.3, unfreeze_after=1, unfreeze_share=0.5)

    policy.step(figures())

    assert policy.frozen_share == 0.3


def test_waiting_starts_anew_where_layers_thaw():
    policy = make(freeze="backbone", epochs=20, patience=2, plateau_patience=0, unfreeze_after=2)
    decisions = [policy.step(figures(loss)) for loss in (1.0, 2.0, 2.0, 2.0)]

    assert [decision.stop for decision in decisions] == [False, False, False, True]
