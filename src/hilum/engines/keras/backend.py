"""Keras, imported on TensorFlow: every file of this engine takes it after this one has been."""

import contextlib
import os
import sys
from collections.abc import Iterator

from hilum.errors import UsageError, require

BACKEND = "tensorflow"


def _choose() -> None:
    """Name the backend before Keras is imported, and imports both.

    Raises:
        UsageError: Keras is there already, on another backend, which cannot be changed any more.
        MissingExtraError: One of them is not installed.
    """
    if "keras" in sys.modules and (found := require("keras", extra="keras").backend.backend()) != BACKEND:
        raise UsageError(
            f"keras was imported on {found} before Hilum asked for {BACKEND}; "
            f"set KERAS_BACKEND={BACKEND} and start anew"
        )
    os.environ["KERAS_BACKEND"] = BACKEND
    tensorflow, _, _ = (require(module, extra="keras") for module in (BACKEND, "keras", "tf2onnx"))
    tensorflow.config.list_logical_devices()  # where it first looks for devices it greets once more


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep TensorFlow's greetings off the terminal: its C++ part writes them to the file descriptor itself."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


with _quietly():
    _choose()
