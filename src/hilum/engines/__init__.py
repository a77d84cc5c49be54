"""Engines: the one place where a training framework meets the rest of Hilum.

An engine takes NumPy batches and gives back weights and an ONNX graph; nothing else of its framework leaves it.
"""

from hilum.engines.contract import Engine, Hooks, InitialWeights, Progress, Trained, TrainingJob, Validation
from hilum.engines.registry import REGISTRY, load_engine

__all__ = [
    "REGISTRY",
    "Engine",
    "Hooks",
    "InitialWeights",
    "Progress",
    "Trained",
    "TrainingJob",
    "Validation",
    "load_engine",
]
