"""Agreement of labels, against scikit-learn and statsmodels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from hilum.errors import DataError, UsageError
from hilum.stats import agreement, fleiss_kappa


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_kappa_and_positive_agreement_are_those_of_scikit_learn(pairs):
    first, second = np.array(pairs, dtype=float).T
    found = agreement(first, second)[0]

    assert found.both + found.first_only + found.second_only + found.neither == len(pairs)
    if len(set(first)) > 1 or len(set(second)) > 1:
        assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    if first.any() or second.any():
        assert found.positive == pytest.approx(f1_score(first, second))
    if not (first.all() and second.all()):
        assert found.negative == pytest.approx(f1_score(1 - first, 1 - second))


def test_only_what_both_know_is_compared():
    nan = math.nan
    mass, edema = agreement(
        [[1, nan], [nan, nan], [0, 1]], [[1, 0], [1, nan], [nan, 0]], findings=["Mass", "Edema"]
    )
    assert (mass.finding, mass.compared, mass.both, mass.one_sided) == ("Mass", 1, 1, 2)
    assert (edema.compared, edema.first_only, edema.one_sided) == (1, 1, 1)
    assert math.isnan(mass.kappa)
    assert math.isnan(mass.negative)
    assert edema.positive == 0


def test_wrong_labels_are_refused():
    with pytest.raises(UsageError, match="give two of each"):
        agreement([1, 0], [1, 0, 1])
    with pytest.raises(DataError, match="other values than 0, 1"):
        agreement([1, 0], [1, -1])
    with pytest.raises(UsageError, match="2 finding names for 1"):
        agreement([1, 0], [1, 0], findings=["a", "b"])


def test_fleiss_kappa_of_his_paper():
    # Table 1 of Fleiss 1971 as it is widely reprinted: 10 subjects, 14 raters, 5 categories; kappa 0.210.
    votes = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(votes) == pytest.approx(0.210, abs=5e-4)
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    with pytest.raises(DataError, match="2 to 3 readers"):
        fleiss_kappa([[3, 0], [2, 0]])
    with pytest.raises(UsageError, match="not counts"):
        fleiss_kappa([[1.5, 0.5]])
