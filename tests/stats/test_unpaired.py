import numpy as np
import pytest
from hypothesis import given, strategies as st

from hilum import stats
from hilum.notices import notice
from hilum.stats.intervals import Estimate, wilson


def proportion(successes, trials):
    return Estimate(successes / trials, *wilson(successes, trials, confidence=0.95))


# Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10 (score without continuity correction).
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ],
)
def test_two_proportions_are_newcombes(first, second, expected):
    found = stats.unpaired_difference(proportion(*first), proportion(*second))

    assert found.value == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert (found.low, found.high) == pytest.approx(expected, abs=6e-5)


@given(*[st.floats(0, 1)] * 6)
def test_the_interval_holds_the_difference_and_turns_with_it(a, b, c, d, e, f):
    one, other = (Estimate(middle, low, high) for low, middle, high in (sorted((a, b, c)), sorted((d, e, f))))

    found, turned = stats.unpaired_difference(one, other), stats.unpaired_difference(other, one)

    assert found.low <= found.value <= found.high
    assert found.high - found.low <= (one.high - one.low) + (other.high - other.low) + 1e-12
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_what_is_missing_is_told():
    whole, bare = Estimate(0.7, 0.6, 0.8), Estimate(0.7, notice=notice("fewer-patients", fewest=10))

    without = stats.unpaired_difference(whole, bare)
    nothing = stats.unpaired_difference(
        Estimate(None, notice=notice("not-estimable", lacking="positives")), whole
    )

    assert (without.value, without.low, without.reason) == (0, None, "no interval: fewer than 10 patients")
    assert (nothing.value, nothing.reason) == (None, "not estimable: 0 positives")


def draw(rng, num_patients, *, shift, prevalence):
    """Patients with 1 to 5 images; disease and score have a part in common within a patient."""
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 6, num_patients))
    shared = rng.normal(size=num_patients)[patients]
    ill = shared * 0.7 + rng.normal(size=len(patients)) * 0.7 > -np.quantile(
        rng.normal(size=2000), prevalence
    )
    score = shift * ill + rng.normal(size=num_patients)[patients] * 0.7 + rng.normal(size=len(patients)) * 0.7
    return ill.astype(float), 1 / (1 + np.exp(0.5 * shift - score)), patients


def scores(labels, probabilities, patients, replicates):
    found = stats.evaluate(
        labels, probabilities, resampling=stats.Resampling(clusters=patients, replicates=replicates)
    )
    return found.findings["finding 1"].metrics


@pytest.mark.slow
def test_the_interval_of_the_difference_holds_the_truth_as_often_as_it_says():
    """Own test of 120 patients, AUROC about 0.92; elsewhere 60 patients, about 0.76, of another prevalence."""
    names = ("auroc", "average_precision", "sensitivity", "specificity")
    own, here = {"shift": 2.0, "prevalence": 0.5}, {"shift": 1.0, "prevalence": 0.3}
    rng = np.random.default_rng(0)
    true = [scores(*draw(rng, 60_000, **kind), 100) for kind in (own, here)]
    truth = {name: true[1][name].value - true[0][name].value for name in names}
    held, sets = dict.fromkeys(names, 0), 500
    for _ in range(sets):
        first, second = scores(*draw(rng, 120, **own), 200), scores(*draw(rng, 60, **here), 200)
        for name in names:
            found = stats.unpaired_difference(second[name], first[name])
            held[name] += found.low <= truth[name] <= found.high

    # Of 500 sets an interval of 95 % misses the truth in 15 to 35, but for one time in a hundred.
    assert all(0.925 <= count / sets <= 0.985 for count in held.values()), held
