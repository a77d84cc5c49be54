"""A Model -> a fitted scikit-learn classifier over images, so that the ecosystem's tools take it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from hilum.errors import DataError, UsageError

if TYPE_CHECKING:
    from hilum.api.model import Model


class BundleClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A sealed model with the interface of a fitted scikit-learn classifier.

    Attributes:
        model: The model.
        classes_: Of one finding 0 (absent) and 1 (present), of classes their names, of several findings an array
            [0, 1] each.
    """

    def __init__(self, model: "Model") -> None:
        """Take the model."""
        self.model = model

    @property
    def classes_(self) -> Any:
        """The classes; see the class."""
        task = self.model.predictor.manifest.task
        if task.exclusive:
            return np.array(self.model.findings)
        return np.array([0, 1]) if task.kind == "binary" else [np.array([0, 1]) for _ in self.model.findings]

    def fit(self, X: object, y: object = None) -> Self:  # noqa: ARG002, N803
        """Refuse to train: a sealed model stays as it is.

        Raises:
            UsageError: Always.
        """
        raise UsageError("a sealed model is not fitted again; train with hilum.train")

    def predict_proba(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:  # noqa: N803
        """Return calibrated probabilities.

        Args:
            X: Images: (images, height, width) arrays, paths, or whatever `Model.predict` takes in a list.

        Returns:
            float64 (images, 2) of one finding: absent, present; else (images, findings).

        Raises:
            DataError: An image cannot be read.
        """
        given = self.model.predict(list(X))
        if unreadable := [prediction for prediction in given if prediction.error]:
            raise DataError(f"{unreadable[0].image}: {unreadable[0].error}")
        probabilities = given.probabilities
        if self.model.predictor.manifest.task.kind == "binary":
            return np.column_stack([1 - probabilities[:, 0], probabilities[:, 0]])
        return np.asarray(probabilities)

    def predict(self, X: Sequence[Any] | np.ndarray) -> np.ndarray:  # noqa: N803
        """Return what is called by the bundle's own rule: 0 or 1, (images,) or (images, findings), or class names."""
        manifest, probabilities = self.model.predictor.manifest, self.predict_proba(X)
        if manifest.task.kind == "binary":
            probabilities = probabilities[:, 1:]
        called = manifest.decision.decide(probabilities)
        if manifest.task.exclusive:
            chosen: np.ndarray = called.argmax(axis=1)
            return np.take(np.array(self.model.findings), chosen)
        decided = called.astype(np.int64)
        return decided[:, 0] if manifest.task.kind == "binary" else decided

    def __sklearn_is_fitted__(self) -> bool:
        return True
