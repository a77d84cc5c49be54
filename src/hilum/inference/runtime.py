"""A bundle -> a Model that turns prepared images into logits, maps and embeddings; the only user of ONNX Runtime."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from hilum.bundle import OUTPUTS, Bundle, Golden, read_bundle
from hilum.errors import BundleError, UsageError

TOLERANCE = 1e-3
SPREAD = 0.1
"""Of a channel that hardly moves, the deviation counts as this share of the embedding's own."""

TYPICAL_SHARE = 0.99
"""Of the validation images, each seen as a new one, so many are within the limit of likeness."""


@dataclass(frozen=True)
class Outputs:
    """What the graph says of n images.

    Attributes:
        logits: float32 (n, findings), before calibration.
        maps: float32 (n, findings, h, w): each place's share of the logit, in logit units.
        embedding: float32 (n, channels): the mean of the feature map.
    """

    logits: np.ndarray
    maps: np.ndarray
    embedding: np.ndarray


class Graph:
    """An ONNX graph of the contract, running."""

    def __init__(self, content: bytes, *, threads: int | None = None) -> None:
        """Starts a session.

        Args:
            content: The bytes of the ONNX file.
            threads: Processor threads; None takes all.

        Raises:
            BundleError: ONNX Runtime refuses the graph.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BundleError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[0][:200]}") from None

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Runs images; see `outputs` for their form. Returns float32 (n, findings)."""
        return np.asarray(self._run(["logits"], images)[0])

    def outputs(self, images: np.ndarray) -> Outputs:
        """Runs images.

        Args:
            images: (n, size, size), uint8 grey values times 255, or float32 in [0, 1].

        Raises:
            UsageError: They have another shape.
        """
        return Outputs(*self._run(list(OUTPUTS), images))

    def _run(self, outputs: list[str], images: np.ndarray) -> list[np.ndarray]:
        side = self.session.get_inputs()[0].shape[-1]
        if images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise UsageError(f"images of shape {images.shape}; (n, size, size) expected")
        if images.shape[2] != side:
            raise UsageError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels; {side} x {side} expected"
            )
        result: list[np.ndarray] = self.session.run(outputs, {"image": as_float(images)})
        return result


@dataclass(frozen=True)
class Model:
    """A bundle with its graph running, its golden output reproduced."""

    bundle: Bundle
    graph: Graph

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, findings) -> calibrated probabilities, float64 in [0, 1]."""
        return self.bundle.manifest.calibration.probabilities(logits)

    def distance(self, embedding: np.ndarray) -> np.ndarray:
        """How far images are from the validation images, (n, channels) -> (n,): see `typical_distance`."""
        return typical_distance(embedding, self.bundle.golden.typical)


def load(folder: Path | Bundle, *, expect: str | None = None, threads: int | None = None) -> Model:
    """Reads a bundle, starts its graph, and checks that it makes of the golden image what it made when sealed.

    Raises:
        UsageError: There is no bundle.
        BundleError: It is damaged, or computes something else here than where it was sealed.
    """
    found = folder if isinstance(folder, Bundle) else read_bundle(Path(folder), expect=expect)
    graph = Graph(found.graph, threads=threads)
    check_golden(graph, found.golden)
    return Model(found, graph)


def check_golden(graph: Graph, golden: Golden) -> None:
    """Raises BundleError unless the graph reproduces the golden outputs within 1e-3."""
    try:
        outputs = graph.outputs(golden.image[None])
    except UsageError as error:
        raise BundleError(f"the graph does not take its own golden image: {error}") from None
    for name in OUTPUTS:
        got, expected = getattr(outputs, name)[0], getattr(golden, name)
        if got.shape != expected.shape or not np.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise BundleError(
                f"the graph's {name} for the golden image differ from those sealed by more than {TOLERANCE}; "
                "the bundle or this machine's ONNX Runtime computes something else"
            )


def golden(graph: Graph, image: np.ndarray, typical: np.ndarray) -> Golden:
    """Records what a graph makes of an image, uint8 (size, size), for sealing."""
    outputs = graph.outputs(image[None])
    return Golden(image, outputs.logits[0], outputs.maps[0], outputs.embedding[0], typical)


def typical_distance(embedding: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """How far images are from the validation images: the root mean square of the standardised embedding.

    d = sqrt(mean over channels of ((e - m) / max(s, 0.1 S))^2) with S^2 = mean over channels of s^2. The floor is for
    channels that are dead on validation: divided by next to nothing, the first image that wakes one would be thousands
    away, however ordinary.

    Args:
        embedding: (n, channels).
        typical: (2, channels), mean m and deviation s over the validation images.

    Returns:
        (n,); about 1 for images like those.
    """
    mean, deviation = np.asarray(typical, np.float64)
    return _distance(embedding - mean, deviation)


def typical_limit(embedding: np.ndarray) -> float:
    """Returns the distance that 99 in 100 validation images keep, (n, channels), each from all the others.

    An image's own part in mean and deviation would bring it nearer than a new one of the same kind.
    """
    values = np.asarray(embedding, np.float64)
    count = len(values)
    if count < 2:
        return 0.0
    from_mean = values - values.mean(axis=0)
    # Without image i the mean is m - (e_i - m) / (n - 1), the variance (n s^2 - n / (n - 1) (e_i - m)^2) / (n - 1).
    squares = np.square(from_mean)
    variance = (squares.sum(axis=0) - squares * count / (count - 1)) / (count - 1)
    distances = _distance(from_mean * count / (count - 1), np.sqrt(np.maximum(variance, 0)))
    return float(np.quantile(distances, TYPICAL_SHARE))


def _distance(from_mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    own = np.sqrt(np.mean(np.square(deviation), axis=-1, keepdims=True))
    standardised = from_mean / np.maximum(deviation, np.maximum(SPREAD * own, 1e-6))
    return np.asarray(np.sqrt(np.mean(np.square(standardised), axis=1)))


def as_float(images: np.ndarray) -> np.ndarray:
    """Images in either form -> float32 (n, size, size) in [0, 1]."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)
