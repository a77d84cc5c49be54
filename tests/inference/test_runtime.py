"""How far images are from those of validation."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hilum.errors import UsageError
from hilum.inference import runtime
from hilum.inference.predictor import Predictor


def moments(embedding):
    return np.stack([embedding.mean(axis=0), embedding.std(axis=0)])


def test_a_channel_that_is_dead_on_validation_does_not_decide():
    random = np.random.default_rng(0)
    embedding = random.normal(size=(200, 40))
    embedding[:, 0] = 0
    new = random.normal(size=(1, 40))
    new[0, 0] = 0.5

    distance = runtime.typical_distance(new, moments(embedding))[0]

    assert 0.5 < distance < 2
    assert runtime.typical_distance(new * 10, moments(embedding))[0] > 8


def test_the_distance_has_the_floor_that_it_is_defined_with():
    typical = np.array([[1.0, 0.0], [2.0, 0.0]])

    distance = runtime.typical_distance(np.array([[3.0, 0.2]]), typical)

    np.testing.assert_allclose(distance, [np.sqrt((1 + (0.2 / (0.1 * np.sqrt(2))) ** 2) / 2)])


@given(count=st.integers(3, 30), channels=st.integers(1, 8), seed=st.integers(0, 1000))
def test_the_limit_is_of_distances_from_the_other_images(count, channels, seed):
    embedding = np.random.default_rng(seed).normal(5, 2, (count, channels))

    limit = runtime.typical_limit(embedding)

    left_out = [
        runtime.typical_distance(embedding[[place]], moments(np.delete(embedding, place, axis=0)))[0]
        for place in range(count)
    ]
    assert limit == pytest.approx(np.quantile(left_out, 0.99), rel=1e-6)


def test_one_in_a_hundred_new_images_of_the_same_kind_is_beyond_the_limit():
    random = np.random.default_rng(1)
    mixing = random.normal(size=(10, 60))
    embedding = np.maximum(random.normal(size=(4500, 10)) @ mixing, 0)

    beyond = runtime.typical_distance(embedding[500:], moments(embedding[:500])) > runtime.typical_limit(
        embedding[:500]
    )

    assert 0.003 < beyond.mean() < 0.03


def test_a_provider_is_known_by_any_of_its_names(monkeypatch):
    monkeypatch.delenv(runtime.PROVIDER, raising=False)

    assert {runtime.choose_provider(name) for name in (None, "cpu", "CPUExecutionProvider")} == {"CPU"}


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(classes, monkeypatch):
    monkeypatch.setenv(runtime.PROVIDER, "abacus")

    with pytest.raises(UsageError, match=r"no provider 'abacus' here; it has: .*CPU"):
        Predictor.load(classes.bundle)
    assert Predictor.load(classes.bundle, provider="cpu").runtime.endswith(" on CPU")
