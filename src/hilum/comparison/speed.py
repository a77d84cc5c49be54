"""Models and some images -> Rates: how fast each graph runs here, all in turn on the same images."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hilum import images
from hilum.images import Location
from hilum.inference.predictor import Predictor
from hilum.progress import Watcher

IMAGES, BATCH, ROUNDS = 32, 16, 5
"""How many images, at once, and how often each model has its turn; the first turn warms up and does not count."""


@dataclass(frozen=True)
class Rate:
    """How fast a graph runs: from prepared squares to logits and maps, files not read.

    Attributes:
        images_a_second: Median of the rounds.
        ratio: Times as fast as the reference: the median of the rounds' ratios, since a busy machine slows all.
        low: Least of the rounds' ratios.
        high: Greatest.
        images: How many were run.
        machine: Where.
    """

    images_a_second: float
    ratio: float
    low: float
    high: float
    images: int
    machine: str


def rates(
    models: Sequence[Predictor],
    sources: Sequence[Location],
    *,
    watch: Watcher,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Rate]:
    """Time the models in turn, round by round.

    Args:
        models: The first is the reference.
        sources: Of images; the first `IMAGES` are used.
        watch: Receives the progress.
        clock: Tells the time in seconds.

    Raises:
        ImageError: An image cannot be read.
    """
    chosen = sources[:IMAGES]
    watch.stage("Timing the models in turn", ROUNDS + 1)
    prepared: dict[tuple[int, str], np.ndarray] = {}
    for model in models:
        manifest = model.bundle.manifest
        form = manifest.input.size, manifest.input.fit
        if form not in prepared:
            prepared[form] = np.stack([images.prepare(source, *form).pixels for source in chosen])
    seconds = np.zeros((ROUNDS + 1, len(models)))
    for turn in range(ROUNDS + 1):
        for number, model in enumerate(models):
            squares = prepared[model.bundle.manifest.input.size, model.bundle.manifest.input.fit]
            start = clock()
            for first in range(0, len(squares), BATCH):
                model.graph.outputs(squares[first : first + BATCH])
            seconds[turn, number] = clock() - start
        watch.advance(turn + 1)
    ratios = seconds[1:, :1] / seconds[1:]
    machine = f"{os.cpu_count()} cores ({platform.machine()}), ONNX Runtime on the CPU"
    return [
        Rate(
            images_a_second=float(len(chosen) / np.median(seconds[1:, number])),
            ratio=float(np.median(ratios[:, number])),
            low=float(ratios[:, number].min()),
            high=float(ratios[:, number].max()),
            images=len(chosen),
            machine=machine,
        )
        for number in range(len(models))
    ]
