"""Training images/s of the whole engine against a bare loop, and against a notebook's; and where its time goes.

The bare loop: the same model, precision, memory format, batch size and optimizer on random tensors in memory; it
neither decodes, augments nor counts. The notebook's: PNG files of 1,024 pixels opened by Pillow, torchvision's
transforms, a DataLoader with as many workers as there are cores, fp32.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torchvision import transforms

from benchmarks._timing import compare
from benchmarks._training import BATCH, SIZE, STEPS, prepared, write_radiographs
from hilum.engines import Hooks
from hilum.engines.session import Position
from hilum.engines.stopwatch import Stopwatch
from hilum.engines.torch.train import TorchSession, resolve_precision

OVERHEAD = 0.05
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HILUM_CACHE"] = f"{folder}/cache"
        labels = write_radiographs(Path(folder) / "images")
        for architecture in ("mobilenetv2", "densenet121"):
            ours = _ours(architecture, Path(folder), labels)
            compare(
                f"training {architecture}, {SIZE} px, against a bare loop",
                ours,
                _bare(architecture),
                at_least=0.9,
            )
            compare(
                f"training {architecture}, {SIZE} px, against a notebook's loop",
                ours,
                _notebook(architecture, Path(folder) / "images", labels),
                at_least=1.2,
                rounds=3,
            )
            _tell_overhead(architecture, ours.session)


class _ours:  # noqa: N801 (called like the functions beside it)
    """An epoch of the engine, loader included; the images are in the cache, as from the second epoch on."""

    def __init__(self, architecture: str, folder: Path, labels: np.ndarray) -> None:
        self.session = TorchSession(prepared(architecture, folder, labels), Hooks())

    def __call__(self) -> None:
        _epoch(self.session)


def _epoch(session: TorchSession) -> None:
    session.position = Position()
    session.begin_epoch()
    session.train_epoch()


def _tell_overhead(architecture: str, session: TorchSession) -> None:
    session.stopwatch = Stopwatch()
    for _ in range(5):
        _epoch(session)
    seconds = session.stopwatch.seconds()
    outside = 1 - (seconds["forward"] + seconds["backward"] + seconds["optimizer"]) / sum(seconds.values())
    verdict = "held" if outside <= OVERHEAD else "MISSED"
    parts = ", ".join(
        f"{name} {100 * value / sum(seconds.values()):.1f} %" for name, value in seconds.items()
    )
    print(
        f"training {architecture}: {100 * outside:.1f} % of an epoch outside forward, backward and optimizer "
        f"(at most {100 * OVERHEAD:g} % claimed: {verdict}; {parts})",
        flush=True,
    )


def _model(architecture: str) -> torch.nn.Module:
    names = {"mobilenetv2": "mobilenetv2_100"}
    return timm.create_model(names.get(architecture, architecture), num_classes=1).train()


def _bare(architecture: str):
    model = _model(architecture).to(memory_format=torch.channels_last)
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


class _Files(torch.utils.data.Dataset):
    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.folder, self.labels = folder, labels
        self.transform = transforms.Compose(
            [
                transforms.Resize((SIZE, SIZE)),
                transforms.RandomRotation(10),
                transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1)),
                transforms.ColorJitter(brightness=0.1, contrast=0.1),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        with Image.open(self.folder / f"{index}.png") as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def _notebook(architecture: str, folder: Path, labels: np.ndarray):
    model = _model(architecture)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(
        _Files(folder, labels), BATCH, shuffle=True, num_workers=os.cpu_count() or 1
    )

    def loop() -> None:
        for images, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], targets)
            loss.backward()
            optimizer.step()
            loss.item()

    return loop
