"""Training images/s of the whole engine, loader included, against a bare timm loop on random tensors in memory.

Same model, precision, memory format, batch size and optimizer. The peer neither decodes, augments nor counts.
"""

import numpy as np
import pandas as pd
import timm
import torch

from benchmarks._timing import compare
from hilum import recipe
from hilum.data.batches import training_batches
from hilum.data.cache import Cached
from hilum.engines.torch.train import Run, resolve_precision

SIZE, BATCH, STEPS = 224, 32, 4


def main() -> None:
    for architecture in ("mobilenetv2_100", "densenet121"):
        ours, peer = _ours(architecture), _peer(architecture)
        compare(f"training {architecture}, {SIZE} px", ours, peer, at_least=0.9, rounds=5)


def _ours(architecture: str):
    number = BATCH * STEPS
    rng = np.random.default_rng(0)
    side = np.full(number, SIZE, np.int32)
    cached = Cached(
        pixels=rng.integers(0, 256, (number, SIZE, SIZE), dtype=np.uint8),
        slots=np.arange(number),
        quarantine=pd.DataFrame(columns=["image", "reason"]),
        hits=0,
        width=side,
        height=side,
    )
    changes = [
        f"model.architecture={architecture}",
        "model.weights=none",
        "model.freeze=none",
        "model.hidden=[]",
    ]
    settings = recipe.load("kermany-densenet121", changes)
    labels = rng.integers(0, 2, (number, 1)).astype(np.float32)
    batches = training_batches(
        cached, np.arange(number), labels, batch_size=BATCH, augment=settings.augment, seed=0, num_workers=2
    )
    run = Run(settings, batches, class_weights=np.ones((1, 2), np.float32))
    return lambda: run._train(1, lambda _progress: None)


def _peer(architecture: str):
    model = timm.create_model(architecture, num_classes=1).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.rand(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (BATCH, 1)).float()
    enabled = resolve_precision("auto") == "bf16"

    def loop() -> None:
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                logits = model(images)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return loop
