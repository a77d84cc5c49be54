"""Training labels -> the weight of each class in the loss."""

import numpy as np

from hilum.recipe import BalanceSettings


def class_weights(labels: np.ndarray, settings: BalanceSettings) -> np.ndarray:
    """Weighs each class inversely to its frequency, per finding.

    As scikit-learn's `balanced`: a class of n_c among n known labels weighs n / (2 n_c), so that both classes
    together weigh as much as before. A finding with one class only keeps weights of 1.

    Args:
        labels: float32 (images, findings) of the training split, NaN unknown.
        settings: `none` gives ones.

    Returns:
        float32 (findings, 2): of absent and of present.
    """
    weights = np.ones((labels.shape[1], 2), np.float32)
    if settings.method == "class-weights":
        counts = np.stack([(labels == 0).sum(axis=0), (labels == 1).sum(axis=0)], axis=1)
        both = counts.min(axis=1) > 0
        weights[both] = counts[both].sum(axis=1, keepdims=True) / (2 * counts[both])
    return weights
