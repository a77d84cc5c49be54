"""The two engines against each other, each in its own process: weights carried over, and learning from equal ones."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("keras", "tensorflow", "torch", "timm"))),
    reason="needs both engines: pip install 'hilum[torch,keras]'",
)
SIDE = Path(__file__).with_name("parity.py")
# Architecture -> the size at which its features are compared.
CARRIED = {"densenet121": 64, "mobilenetv2": 64, "vgg16": 32}


def side(engine, what, folder, **options):
    """Runs one side in a fresh process; see parity.py."""
    subprocess.run(
        [sys.executable, str(SIDE), engine, what, str(folder), json.dumps(options)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    with np.load(folder / f"{engine}-{what}.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "end"), [("torch", "keras"), pytest.param("keras", "torch", marks=pytest.mark.full)]
)
def test_weights_carry_over_exactly(start, end, tmp_path):
    """All networks in one process a side: importing a framework takes longer than running it."""
    before = side(start, "give", tmp_path, architectures=CARRIED)
    after = side(end, "take", tmp_path, architectures=CARRIED)

    for architecture in CARRIED:
        difference = np.abs(after[architecture] - before[architecture]).max()
        assert difference <= 1e-4 * max(1.0, np.abs(before[architecture]).max()), architecture


@pytest.mark.slow
def test_from_equal_weights_both_engines_learn_alike(tmp_path):
    """Ten steps, fp32, no dropout. Losses differ by rounding alone, which the steps between them magnify.

    Of validation they differ more: in batch norm's running variance PyTorch keeps the unbiased one of a batch, Keras
    the biased, which is 3 % less where a batch has 8 images of 2 x 2 places.
    """
    side("torch", "give", tmp_path, architectures={"custom_cnn": 32})

    ours, theirs = (side(engine, "learn", tmp_path) for engine in ("keras", "torch"))

    for name in ("sgd", "adam", "everything"):
        assert len(ours[name]) == 10
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(ours[f"{name}-validation"], theirs[f"{name}-validation"], rtol=3e-2)
