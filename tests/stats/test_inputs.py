import numpy as np
import pytest

from hilum.errors import DataError, UsageError
from hilum.stats.inputs import check, number_clusters


def test_one_dimension_becomes_one_finding():
    inputs = check([0, 1, np.nan], [0.1, 0.2, 0.3])
    assert inputs.labels.shape == (3, 1)
    assert inputs.findings == ("finding 1",)


def test_without_patients_every_image_is_its_own():
    assert check([0, 1], [0.1, 0.2]).num_clusters == 2


@pytest.mark.parametrize(
    "names",
    [["b", "a", "b"], np.array(["b", "a", "b"]), [7, 3, 7], np.array(["b", 3, "b"], dtype=object)],
)
def test_patients_may_be_named_by_text_numbers_or_both(names):
    codes, count = number_clusters(names, num_images=3)
    assert count == 2
    assert codes[0] == codes[2] != codes[1]


@pytest.mark.parametrize(
    ("labels", "probabilities", "options", "error", "message"),
    [
        (
            [0, 1],
            [0.1, 1.7],
            {},
            DataError,
            r"probability of image 1 for 'finding 1' is 1\.7 .*expected 0 to 1",
        ),
        ([0, 1], [0.1, -0.1], {}, DataError, r"is -0\.1"),
        ([0, 1], [np.nan, 0.1], {}, DataError, r"probability of image 0 .* is nan"),
        ([0, 2], [0.1, 0.1], {}, DataError, r"label of image 1 for 'finding 1' is 2 .*expected 0, 1 or NaN"),
        ([0, 1, 1], [0.1, 0.2], {}, UsageError, r"labels are \(3, 1\) and probabilities \(2, 1\)"),
        ([], [], {}, DataError, "without an image"),
        (["yes", "no"], [0.1, 0.2], {}, UsageError, "not all numbers"),
        ([[[0]]], [[[0.1]]], {}, UsageError, "3 dimensions"),
        ([0, 1], [0.1, 0.2], {"clusters": [1]}, UsageError, r"clusters are \(1,\); expected \(2,\)"),
        ([0, 1], [0.1, 0.2], {"clusters": [1.0, np.nan]}, DataError, "patient of image 1 is unknown"),
        ([0, 1], [0.1, 0.2], {"clusters": ["", "b"]}, DataError, "patient of image 0 is unknown"),
        ([0, 1], [0.1, 0.2], {"clusters": [None, "b"]}, DataError, "patient of image 0 is unknown"),
        ([0, 1], [0.1, 0.2], {"findings": ["a", "b"]}, UsageError, "2 finding names"),
        ([[0, 1]], [[0.1, 0.2]], {"findings": ["a", "a"]}, UsageError, r"\(1 different\)"),
    ],
)
def test_wrong_input_says_what_arrived_and_what_was_expected(labels, probabilities, options, error, message):
    with pytest.raises(error, match=message):
        check(labels, probabilities, **options)
