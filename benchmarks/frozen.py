"""Ten epochs of a small head on a frozen DenseNet121, 1,000 radiographs, against `fit` over the frozen model in Keras.

Ours reads and prepares the files, sends each image through the backbone as often as `train.stored_versions` says, and
trains the head on what is stored; the peer is what a notebook writes (`_notebook.py`), in a process of its own. Both
have the same weights (random ones, since no others can be counted on), head, optimizer, images and division: 800 train,
200 of other patients steer. The AUROC of validation after the tenth epoch stands beside, over several seeds.

Real radiographs are taken where `$HILUM_KERMANY` names a folder of Kermany's, or ../shared/data has one; else
synthetic ones are drawn. A seed takes about half an hour on two cores;
`$HILUM_BENCH_SEEDS` says how many, 1 unless told.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hilum.data import cache, phantom, readers
from hilum.data.batches import training_batches
from hilum.engines import Hooks, TrainingJob, Validation, load_engine
from hilum.engines.torch import weight_exchange
from hilum.engines.torch.backbones import make_backbone
from hilum.recipe import load_recipe

IMAGES, VALIDATION, EPOCHS, SIZE = 1000, 200, 10, 224
SEEDS = int(os.environ.get("HILUM_BENCH_SEEDS", "1"))
# Versions of each image, whether the peer augments, and how many times faster we claim to be.
CASES = ((1, False, 20.0), (2, True, 20.0), (5, True, 7.0))


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = _write_folders(folder / "images")
        weights = folder / "weights.npz"
        arrays = weight_exchange.arrays(make_backbone("densenet121", size=SIZE).eval(), SIZE)
        np.savez(weights, mean=np.zeros(3), std=np.ones(3), **arrays)
        print(f"{IMAGES} {drawn} radiographs, {SIZE} px, {EPOCHS} epochs, {SEEDS} seed(s)", flush=True)
        peers = {False: [], True: []}
        for versions, augment, claimed in CASES:
            ours = []
            for seed in range(SEEDS):
                ours.append(_ours(folder, weights, versions, augment=augment, seed=seed))
                if len(peers[augment]) <= seed:
                    peers[augment].append(_peer(folder, weights, augment=augment, seed=seed))
            _tell(versions, augment, claimed, ours, peers[augment])


def _tell(versions: int, augment: bool, claimed: float, ours: list[dict], peers: list[dict]) -> None:
    ratios = [peer["seconds"] / mine["seconds"] for mine, peer in zip(ours, peers, strict=True)]
    ratio = statistics.median(ratios)
    what = "with augmentation" if augment else "without augmentation"
    aurocs = " against ".join(" ".join(f"{one['auroc']:.3f}" for one in found) for found in (ours, peers))
    print(
        f"stored_versions = {versions}, {what}, against keras.Model.fit over the frozen model: {ratio:.1f} times the "
        f"peer's speed (from {min(ratios):.1f} to {max(ratios):.1f} over {len(ratios)} seeds; at least {claimed:g} "
        f"claimed: {'held' if ratio >= claimed else 'MISSED'}); validation AUROC {aurocs}",
        flush=True,
    )


def _ours(folder: Path, weights: Path, versions: int, *, augment: bool, seed: int) -> dict:
    """Seconds from files to a trained head, with an empty cache, and validation's AUROC."""
    changes = {
        "model.weights": f'"{weights}"',
        "model.l2": 0,
        "train.stored_versions": versions,
        "train.epochs": EPOCHS,
        "train.patience": 0,
        "train.schedule": '"constant"',
        "train.seed": seed,
        "balance.method": '"none"',
        "augment.rotation": 20 if augment else 0,
        "augment.shift": 0.2 if augment else 0,
        "augment.shear": 10 if augment else 0,
        "augment.zoom": 0.2 if augment else 0,
        "augment.flip": str(augment).lower(),
        "augment.brightness": 0,
        "augment.contrast": 0,
    }
    recipe = load_recipe("kermany-densenet121", [f"{key}={value}" for key, value in changes.items()])
    engine = load_engine("torch")
    with tempfile.TemporaryDirectory() as fresh:
        os.environ["HILUM_CACHE"] = fresh
        started = time.perf_counter()
        table = readers.read(folder / "images")
        labels = table.labels(["Pneumonia"])
        cached = cache.build(table, size=SIZE, fit="squash")
        parts = table.frame["split"].to_numpy(str)
        batches = training_batches(
            cached,
            np.flatnonzero(parts == "train"),
            labels,
            batch_size=32,
            augment=recipe.augment,
            seed=seed,
            num_workers=os.cpu_count() or 1,
        )
        steering = np.flatnonzero(parts == "val")
        job = TrainingJob(
            recipe,
            batches,
            Validation(cached.images(steering), labels[steering]),
            class_weights=np.ones((1, 2), np.float32),
            state=Path(fresh) / "state" / "last.safetensors",
        )
        trained = engine.fit(job, Hooks())
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "auroc": float(trained.history["val_auroc"].iloc[-1])}


def _peer(folder: Path, weights: Path, *, augment: bool, seed: int) -> dict:
    command = [sys.executable, "-m", "benchmarks._notebook", str(folder / "images"), str(weights)]
    command += [str(EPOCHS), str(seed), "yes" if augment else "no"]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _write_folders(folder: Path) -> str:
    """Lays images out as train and val, NORMAL and PNEUMONIA, by patient; says of what kind they are."""
    near = Path(__file__).parents[2] / "shared" / "data" / "kermany_224"
    source = Path(os.environ.get("HILUM_KERMANY", near))
    if source.is_dir():
        table = readers.read(source)
        table = table.select(table.frame["split"] == "train")
    else:
        table = phantom.generate(folder.parent / "drawn", num_images=4 * IMAGES, seed=0)
    present = table.labels([table.findings[0]])[:, 0] == 1
    patients = table.frame["patient"].to_numpy(str)
    rng = np.random.default_rng(0)
    place = {patient: number for number, patient in enumerate(rng.permutation(np.unique(patients)))}
    order = np.array(sorted(range(len(table)), key=lambda row: place[patients[row]]))
    for name, wanted in (("PNEUMONIA", True), ("NORMAL", False)):
        rows = order[present[order] == wanted]
        steering = rows[: VALIDATION // 2]
        others = rows[~np.isin(patients[rows], patients[steering])]
        for part, chosen in (("val", steering), ("train", others[: (IMAGES - VALIDATION) // 2])):
            (folder / part / name).mkdir(parents=True)
            for row in chosen:
                path = table.location(row).path
                shutil.copy(path, folder / part / name / path.name)
    return "real" if source.is_dir() else "synthetic"


if __name__ == "__main__":
    main()
