"""Prepared images and labels -> a `tf.data.Dataset`, for training loops of one's own."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hilum.data.examples import Examples


def make_dataset(examples: Examples, labels: np.ndarray) -> Any:
    """Return prepared rows as TensorFlow takes them.

    Args:
        examples: The rows.
        labels: Float32 (rows, findings).

    Returns:
        A `tf.data.Dataset` of known length whose items are an image, float32 (size, size, 1), grey in [0, 1], and its
        labels, float32 (findings,): 1 present, 0 absent, NaN unknown.
    """
    import tensorflow

    def items() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for row in range(len(examples.table)):
            square = examples.cached.images(np.array([row]))[0]
            yield square[..., None].astype(np.float32) / 255, labels[row]

    size = examples.cached.pixels.shape[1]
    signature = (
        tensorflow.TensorSpec((size, size, 1), tensorflow.float32),
        tensorflow.TensorSpec((labels.shape[1],), tensorflow.float32),
    )
    dataset = tensorflow.data.Dataset.from_generator(items, output_signature=signature)
    return dataset.apply(tensorflow.data.experimental.assert_cardinality(len(examples.table)))
