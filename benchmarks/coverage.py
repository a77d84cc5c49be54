"""How often the 95 % intervals hold the truth: simulated patients of 1 to 10 images, prevalence 1 to 50 %.

`python benchmarks/coverage.py --write` puts the tables into docs/coverage.md (about a quarter of an hour on two
cores); without --write they are printed.
"""

import argparse
import os
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from hilum.files import write_text
from hilum.stats import METRICS, Estimate, Resampling, compare, evaluate
from hilum.stats.delong import delong
from hilum.stats.inputs import check
from hilum.stats.intervals import wilson
from hilum.stats.metrics import weigh
from hilum.stats.scores import tally_of

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
MARKS = ("<!-- coverage: written by benchmarks/coverage.py -->", "<!-- end of coverage -->")
SIMULATIONS = 1_000
REPLICATES = 1_000
TRUTH_PATIENTS = 200_000
PREVALENCE = 0.1


@dataclass(frozen=True)
class Scenario:
    """Patients in a set, the log odds that set the prevalence and the standard deviation of the scores."""

    patients: int
    level: float
    spread: float = 1.5

    @property
    def threshold(self) -> float:
        """Of the first model's probabilities, a little above their middle."""
        return float(expit(0.8 * self.level + 0.7 * self.spread - 0.35))


SCENARIOS = (
    Scenario(20, -1.95),
    Scenario(50, -4.1),
    Scenario(100, -6.2),
    Scenario(250, -6.2),
    Scenario(400, -6.2),
    Scenario(1000, -6.2),
    Scenario(400, -4.1),
    Scenario(100, -1.95),
    Scenario(100, 0.0),
    Scenario(150, -3.9, 4.0),
)
COLUMNS = ("recommended", "percentile", "bca")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/coverage.md")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="sets a scenario (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(simulate, SCENARIOS, [arguments.simulations] * len(SCENARIOS)))
    text = tables(results, arguments.simulations)
    if arguments.write:
        before, rest = DOCUMENT.read_text().split(MARKS[0])
        write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    print(text)


@dataclass(frozen=True)
class Result:
    """Of one scenario: what it is like, and (column, metric) -> intervals given, intervals that hold the truth."""

    scenario: Scenario
    prevalence: float
    positive_patients: float
    truth: dict[str, float]
    counts: dict[tuple[str, str], list[int]]


def simulate(scenario: Scenario, simulations: int) -> Result:
    big = draw(scenario, TRUTH_PATIENTS, np.random.default_rng(1))
    truth, second_auroc = truths(scenario, *big)
    rng = np.random.default_rng(
        [2, scenario.patients, round(-1000 * scenario.level), round(10 * scenario.spread)]
    )
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    positive_patients = []

    def count(column: str, metric: str, low: float | None, high: float | None, true: float) -> None:
        if low is not None and high is not None:
            counts[column, metric][0] += 1
            counts[column, metric][1] += low <= true <= high

    for number in range(simulations):
        labels, first, second, patients = draw(scenario, scenario.patients, rng)
        present = labels == 1
        positive_patients.append(len(np.unique(patients[present])))
        for column in COLUMNS:
            scores = evaluate(
                labels,
                first,
                thresholds=scenario.threshold,
                prevalence=PREVALENCE,
                resampling=Resampling(clusters=patients, replicates=REPLICATES, seed=number, method=column),
            )
            for metric, one in scores.findings["finding 1"].metrics.items():
                count(column, metric, one.low, one.high, truth[metric])
        difference: Estimate = (
            compare(
                labels,
                first,
                second,
                resampling=Resampling(clusters=patients, replicates=REPLICATES, seed=number),
            )
            .findings["finding 1"]
            .differences["auroc"]
        )
        count(
            "recommended", "auroc difference", difference.low, difference.high, truth["auroc"] - second_auroc
        )
        if min(present.sum(), (~present).sum()) > 1:
            for column, clusters in (("DeLong", None), ("DeLong, patients", patients)):
                low, high = delong(present, first, clusters=clusters).interval(confidence=0.95)
                count(column, "auroc", low, high, truth["auroc"])
            called = first >= scenario.threshold
            for metric, right, of in (("sensitivity", called, present), ("specificity", ~called, ~present)):
                low, high = wilson((right & of).sum(), of.sum(), confidence=0.95)
                count("Wilson", metric, low, high, truth[metric])
    return Result(scenario, float(big[0].mean()), float(np.mean(positive_patients)), truth, dict(counts))


def draw(scenario: Scenario, patients: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, two models' probabilities and patients; half of a score's variance is the patient's."""
    sizes = rng.integers(1, 11, patients)
    of = np.repeat(np.arange(patients), sizes)
    own, shared = rng.normal(size=len(of)), rng.normal(size=patients)[of]
    odds = scenario.level + scenario.spread * np.sqrt(0.5) * (own + shared)
    labels = rng.random(len(of)) < expit(odds + 0.7 * rng.normal(size=patients)[of])
    other = odds + 0.8 * rng.normal(size=len(of))
    return labels.astype(float), expit(0.8 * odds - 0.2), expit(0.8 * other - 0.2), of


def truths(
    scenario: Scenario, labels: np.ndarray, first: np.ndarray, second: np.ndarray, patients: np.ndarray
) -> tuple[dict[str, float], float]:
    values = []
    for probabilities in (first, second):
        inputs = check(labels, probabilities, clusters=patients)
        tally = tally_of(inputs, inputs.probabilities >= scenario.threshold, [0], prevalence=PREVALENCE)
        values.append(weigh([tally], [np.ones((inputs.num_clusters, 1))])[0, :, 0])
    return dict(zip(METRICS, values[0].tolist(), strict=True)), float(values[1][0])


def tables(results: list[Result], simulations: int) -> str:
    error = 100 * 1.96 * np.sqrt(0.95 * 0.05 / simulations)
    drawn = f"{simulations:,} simulated sets each, {REPLICATES:,} resamples each"
    given = {metric for result in results for _, metric in result.counts}
    metrics = [metric for metric in METRICS if metric in given]
    sections = (section(chr(ord("A") + i), result, metrics, simulations) for i, result in enumerate(results))
    return "\n\n".join([f"{drawn}, simulation error {error:.1f} points.", *sections])


def section(letter: str, result: Result, metrics: list[str], simulations: int) -> str:
    """One scenario: what it is like, a row a metric, and the methods that are for one metric alone."""

    def held(column: str, metric: str) -> str:
        return cell(result.counts.get((column, metric), [0, 0]), simulations)

    head = f"{letter}: {result.scenario.patients:,} patients, prevalence {100 * result.prevalence:.1f} %"
    truth = (
        f"Of the patients {result.positive_patients:.0f} have the finding on average. "
        f"The true AUROC is {result.truth['auroc']:.2f}."
    )
    rows = [f"| {metric} | {' | '.join(held(column, metric) for column in COLUMNS)} |" for metric in metrics]
    table = "\n".join(["| metric | recommended | percentile | BCa |", "| --- | ---: | ---: | ---: |", *rows])
    others = (
        f"- the difference of two AUROCs, recommended: {held('recommended', 'auroc difference')}\n"
        f"- DeLong's interval of AUROC: {held('DeLong', 'auroc')}; "
        f"with patients as clusters: {held('DeLong, patients', 'auroc')}\n"
        f"- Wilson's of sensitivity: {held('Wilson', 'sensitivity')}; "
        f"of specificity: {held('Wilson', 'specificity')}"
    )
    return "\n\n".join([f"## {head}", truth, table, "Beside them:", others])


def cell(count: list[int], simulations: int) -> str:
    given, inside = count
    if given < 0.05 * simulations:
        return "refused"
    share = f"{100 * inside / given:.1f}"
    return share if given == simulations else f"{share} ({100 * given / simulations:.0f})"


if __name__ == "__main__":
    main()
