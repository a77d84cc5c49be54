"""Keras, imported on TensorFlow: every file of this engine takes it after this one has been."""

import os
import sys

from hilum.errors import UsageError

BACKEND = "tensorflow"


def _choose() -> None:
    """Names the backend before Keras is imported, and keeps TensorFlow's greetings off the terminal.

    Raises:
        UsageError: Keras is there already, on another backend, which cannot be changed any more.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    if keras.backend.backend() != BACKEND:
        raise UsageError(
            f"keras was imported on {keras.backend.backend()} before Hilum asked for {BACKEND}; "
            f"set KERAS_BACKEND={BACKEND} and start anew"
        )


_choose()
