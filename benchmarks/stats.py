"""Clustered bootstrap of AUROC and average precision: Hilum beside the usual loop over scikit-learn.

The NIH ChestX-ray14 test list gives patients and labels (../shared/data/nih beside the checkout; without it, a set
of the same shape is drawn), scores are simulated. The loop is timed on a few resamples and scaled up.
"""

import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from hilum.stats import Resampling
from hilum.stats.inputs import check
from hilum.stats.intervals import resamples
from hilum.stats.metrics import METRICS, block_width, weigh
from hilum.stats.scores import evaluate, tally_of

NUM_IMAGES = 22_000
REPLICATES = 2_000
LOOP_REPLICATES = 20
NIH = Path(__file__).resolve().parents[2] / "shared" / "data" / "nih"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip


def main() -> None:
    source, labels, patients = labels_and_patients()
    rng = np.random.default_rng(0)
    # Separation between the published per-finding AUROCs' extremes, some .65 to .9.
    logits = rng.normal(size=labels.shape) + labels * np.linspace(0.6, 1.8, labels.shape[1]) - 2
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32).astype(np.float64)
    print(
        f"{source}: {labels.shape[0]} images, {labels.shape[1]} findings, {len(np.unique(patients))} patients"
    )

    loop = loop_seconds(labels, probabilities, patients) * REPLICATES / LOOP_REPLICATES
    start = time.perf_counter()
    areas = bootstrap_areas(labels, probabilities, patients)
    ours = time.perf_counter() - start
    scikit = np.array([
        [roc_auc_score(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])],
        [average_precision_score(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])],
    ]).T  # fmt: skip
    print(f"largest difference from scikit-learn's values: {np.abs(areas - scikit).max():.1e}")
    print(
        f"AUROC and average precision, {REPLICATES} resamples of patients: {ours:.2f} s, "
        f"scikit-learn loop {loop:.0f} s (from {LOOP_REPLICATES}): {loop / ours:.0f} times as fast"
    )
    start = time.perf_counter()
    evaluate(
        labels, probabilities, thresholds=0.3, resampling=Resampling(clusters=patients, replicates=REPLICATES)
    )
    everything = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"all {len(METRICS) - 2} metrics, macro and micro, with intervals: {everything:.2f} s: "
        f"{loop / everything:.0f} times as fast as the loop takes for two; peak memory {peak:.2f} GiB"
    )


def bootstrap_areas(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Resamples both areas of every finding; returns the unweighted ones, (findings, 2)."""
    inputs = check(labels, probabilities, clusters=patients)
    decisions = inputs.probabilities >= 0.5
    tallies = [tally_of(inputs, decisions, [k], prevalence=None) for k in range(labels.shape[1])]
    blocks = resamples(inputs.num_clusters, replicates=REPLICATES, seed=0, width=block_width(tallies))
    weigh(tallies, blocks)
    return weigh(tallies, [np.ones((inputs.num_clusters, 1))])[:, :2, 0]


def loop_seconds(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> float:
    rng = np.random.default_rng(0)
    order = np.argsort(patients, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    start = time.perf_counter()
    for _ in range(LOOP_REPLICATES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        for k in range(labels.shape[1]):
            roc_auc_score(labels[rows, k], probabilities[rows, k])
            average_precision_score(labels[rows, k], probabilities[rows, k])
    return time.perf_counter() - start


def labels_and_patients() -> tuple[str, np.ndarray, np.ndarray]:
    """Labels (images, findings) of 0 and 1 and patients (images,)."""
    if NIH.is_dir():
        table = pd.read_csv(NIH / "Data_Entry_2017_v2020.csv", index_col="Image Index")
        table = table.loc[(NIH / "test_list.txt").read_text().split()].iloc[:NUM_IMAGES]
        named = table["Finding Labels"].str.get_dummies("|")
        return "NIH test list", named[list(FINDINGS)].to_numpy(float), table["Patient ID"].to_numpy()
    rng = np.random.default_rng(0)
    prevalence = np.geomspace(0.004, 0.25, len(FINDINGS))
    patients = np.sort(rng.integers(0, 2_400, NUM_IMAGES))
    return "drawn", (rng.random((NUM_IMAGES, len(FINDINGS))) < prevalence).astype(float), patients


if __name__ == "__main__":
    main()
