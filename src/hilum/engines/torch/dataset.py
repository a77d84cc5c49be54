"""Prepared images and labels -> a PyTorch Dataset, for training loops of one's own."""

import numpy as np
import torch
from torch.utils.data import Dataset

from hilum.data.examples import Examples


class RadiographDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images and labels, one pair a row.

    An item is an image, float32 (1, size, size), grey in [0, 1], and its labels, float32 (findings,): 1 present,
    0 absent, NaN unknown.

    Attributes:
        examples: The rows, prepared.
        labels: Float32 (rows, findings).
    """

    def __init__(self, examples: Examples, labels: np.ndarray) -> None:
        """Take prepared rows and their labels."""
        self.examples, self.labels = examples, labels

    def __len__(self) -> int:
        return len(self.examples.table)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        square = self.examples.cached.images(np.array([row % len(self)]))
        return torch.from_numpy(square).to(torch.float32) / 255, torch.tensor(self.labels[row])


def make_dataset(examples: Examples, labels: np.ndarray) -> RadiographDataset:
    """Return prepared rows as PyTorch takes them."""
    return RadiographDataset(examples, labels)
