import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.stats.aggregation import aggregate

LABELS = np.array([[0, 1], [np.nan, 0], [0, 0], [1, np.nan], [0, 0]])
PROBABILITIES = np.array([[0.2, 0.9], [0.6, 0.3], [0.1, 0.2], [0.4, 0.8], [0.3, 0.4]])
PATIENTS = np.array(["b", "a", "b", "a", "c"])


def test_groups_come_in_the_order_of_their_first_image():
    level = aggregate(LABELS, PROBABILITIES, groups=PATIENTS, level="patient")
    assert PATIENTS[level.first_image].tolist() == ["b", "a", "c"]
    assert level.sizes.tolist() == [2, 2, 1]


def test_a_positive_image_outweighs_unknown_ones_and_no_other_does():
    level = aggregate(LABELS, PROBABILITIES, groups=PATIENTS, level="patient")
    np.testing.assert_array_equal(level.labels, [[0, 1], [1, np.nan], [0, 0]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [("maximum", [[0.2, 0.9], [0.6, 0.8], [0.3, 0.4]]), ("mean", [[0.15, 0.55], [0.5, 0.55], [0.3, 0.4]])],
)
def test_probabilities_are_joined_as_named(how, expected):
    level = aggregate(LABELS, PROBABILITIES, groups=PATIENTS, level="study", how=how)
    np.testing.assert_allclose(level.probabilities, expected, atol=1e-12)
    assert level.name == f"study ({how})"


def test_an_unknown_way_names_the_known_ones():
    with pytest.raises(UsageError, match="maximum"):
        aggregate(LABELS, PROBABILITIES, groups=PATIENTS, level="patient", how="max")
