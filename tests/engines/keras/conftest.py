"""Skips what needs Keras where it is not installed; brings it in on the right backend, its own warnings aside."""

import importlib.util
import warnings

import pytest

if importlib.util.find_spec("keras") and importlib.util.find_spec("tensorflow"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TensorFlow, while it is imported
        import hilum.engines.keras  # noqa: F401
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def tensorboard_alone() -> None:
    """Lets TensorBoard have TensorFlow, which is at home here."""
