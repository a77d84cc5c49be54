"""Each shipped recipe, as the PyTorch engine builds and trains it."""

import pytest

from engines.shipped import *  # noqa: F403
from engines.torch.test_contract import TorchSide


@pytest.fixture(scope="module")
def side():
    return TorchSide()
