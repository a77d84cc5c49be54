"""Each shipped recipe, as the Keras engine builds and trains it."""

import pytest

from engines.keras.test_contract import KerasSide
from engines.shipped import *  # noqa: F403


@pytest.fixture(scope="module")
def side():
    return KerasSide()
