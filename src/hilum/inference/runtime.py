"""A graph running: prepared images -> logits, maps and embeddings; the only user of ONNX Runtime."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from hilum.bundle import OUTPUTS, Golden
from hilum.errors import BundleError, UsageError, nearest

PROVIDER = "HILUM_PROVIDER"
"""The environment variable that names the execution provider where no argument does."""
CPU = "CPU"

TOLERANCE = 1e-3
SPREAD = 0.1
"""Of a channel that hardly moves, the deviation counts as this share of the embedding's own."""

TYPICAL_SHARE = 0.99
"""Of the validation images, each seen as a new one, so many are within the limit of likeness."""


@dataclass(frozen=True)
class Outputs:
    """What the graph gives for n images.

    Attributes:
        logits: float32 (n, findings), before calibration.
        maps: float32 (n, findings, h, w): each place's share of the logit, in logit units.
        embedding: float32 (n, channels): the mean of the feature map.
    """

    logits: np.ndarray
    maps: np.ndarray
    embedding: np.ndarray


class Graph:
    """An ONNX graph of the contract, running.

    Attributes:
        runtime: What runs it, in words, such as `ONNX Runtime 1.22.0 on CPU`.
    """

    def __init__(self, content: bytes, *, provider: str | None = None, threads: int | None = None) -> None:
        """Start a session.

        Args:
            content: The bytes of the ONNX file.
            provider: Execution provider of ONNX Runtime, such as `CPU` or `CUDA`; see `choose_provider`.
            threads: Processor threads; None takes all.

        Raises:
            UsageError: The provider is not there, or does not start on this machine.
            BundleError: ONNX Runtime refuses the graph.
        """
        chosen = choose_provider(provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=[_full(chosen)])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BundleError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[0][:200]}") from None
        # Where a provider's libraries are missing, ONNX Runtime falls back to the CPU without a word.
        started = self.session.get_providers()
        if _full(chosen) not in started:
            raise UsageError(
                f"ONNX Runtime's provider {chosen} does not start on this machine; it fell back to {_short(started[0])}"
            )
        self.runtime = f"ONNX Runtime {onnxruntime.__version__} on {chosen}"

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Run images; see `outputs` for their form. Return float32 (n, findings)."""
        return np.asarray(self._run(["logits"], images)[0])

    def outputs(self, images: np.ndarray) -> Outputs:
        """Run images.

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


def choose_provider(name: str | None = None) -> str:
    """Return the execution provider to run on: the one named, else `$HILUM_PROVIDER`, else the CPU.

    Args:
        name: With or without ONNX Runtime's `ExecutionProvider`, in any case: `cuda`, `CPUExecutionProvider`.

    Raises:
        UsageError: This installation of ONNX Runtime has no such provider; the message lists those that it has.
    """
    known = list_providers()
    wanted = _short(name or os.environ.get(PROVIDER) or CPU)
    for provider in known:
        if provider.casefold() == wanted.casefold():
            return provider
    raise UsageError(f"ONNX Runtime has no provider {wanted!r} here; it has: {nearest(wanted, known)}")


def list_providers() -> Sequence[str]:
    """Return the names of the execution providers that this installation of ONNX Runtime has."""
    return [_short(provider) for provider in onnxruntime.get_available_providers()]


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _full(provider: str) -> str:
    return f"{provider}ExecutionProvider"


def check_golden(graph: Graph, golden: Golden) -> None:
    """Raise BundleError unless the graph reproduces the golden outputs within 1e-3."""
    try:
        outputs = graph.outputs(golden.image[None])
    except UsageError as error:
        raise BundleError(f"the graph does not take its own golden image: {error}") from None
    for name in OUTPUTS:
        computed, sealed = getattr(outputs, name)[0], getattr(golden, name)
        if computed.shape != sealed.shape or not np.allclose(
            computed, sealed, rtol=TOLERANCE, atol=TOLERANCE
        ):
            raise BundleError(
                f"the graph's {name} for the golden image differ from those sealed by more than {TOLERANCE}; "
                "the bundle or this machine's ONNX Runtime computes something else"
            )


def golden(graph: Graph, image: np.ndarray, typical: np.ndarray) -> Golden:
    """Record what a graph makes of an image, uint8 (size, size), for sealing."""
    outputs = graph.outputs(image[None])
    return Golden(image, outputs.logits[0], outputs.maps[0], outputs.embedding[0], typical)


def typical_distance(embedding: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Return how far images are from the validation images: the root mean square of the standardised embedding.

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
    """Return the distance that 99 in 100 validation images keep, (n, channels), each from all the others.

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
    """Turn images in either form into float32 (n, size, size) in [0, 1]."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)
