"""What the benchmarks of training in both engines share: files, and the batches and recipe made of them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from hilum.data import cache
from hilum.data.batches import training_batches
from hilum.data.table import Source, Table, make_frame
from hilum.engines import TrainingJob, Validation
from hilum.recipe import load_recipe

SIZE, BATCH, STEPS = 224, 32, 4


def write_radiographs(folder: Path) -> np.ndarray:
    """Writes files of smooth noise, as large as NIH's; returns labels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(BATCH * STEPS):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
        coarse.resize((1024, 1024), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return rng.integers(0, 2, BATCH * STEPS).astype(np.float32)


def prepared(architecture: str, folder: Path, labels: np.ndarray) -> TrainingJob:
    """Make the job that trains all of a network on the files in `folder / "images"`, cached."""
    names = [f"{index}.png" for index in range(len(labels))]
    table = Table(
        frame=make_frame(
            image=names, source="noise", patient=names, findings=("Pneumonia",), labels=labels[:, None]
        ),
        findings=("Pneumonia",),
        sources=(Source("noise", folder / "images", "", ""),),
    )
    settings = load_recipe(
        "kermany-densenet121",
        [
            f"model.architecture={architecture}",
            "model.weights=none",
            "model.freeze=none",
            "model.hidden=[]",
            "model.dropout=0",
        ],
    )
    batches = training_batches(
        cache.build(table, size=SIZE, fit="squash"),
        np.arange(len(labels)),
        labels[:, None],
        batch_size=BATCH,
        augment=settings.augment,
        seed=0,
        num_workers=os.cpu_count() or 1,
    )
    return TrainingJob(
        settings,
        batches,
        Validation(np.zeros((0, SIZE, SIZE), np.uint8), np.zeros((0, 1), np.float32)),
        class_weights=np.ones((1, 2), np.float32),
        state=folder / "state",
    )
