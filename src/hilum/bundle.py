"""A sealed folder <-> a Bundle: one framework-free model with all that is needed to use and to judge it.

    bundle.json     the manifest: findings, calibration, what was seen in training, recipe, licences
    model.onnx      the graph: image -> logits, maps, embedding
    weights/        the same weights for the framework that trained them
    golden.npz      a phantom and what the graph makes of it
    SHA256SUMS      over every other file; its own SHA-256 is the bundle's hash, its name everywhere

Hashes prove that nothing changed, not who made it: whoever must know that pins the hash (`expect`).
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import expit, softmax

from hilum.errors import BundleError, UsageError
from hilum.files import replacing_folder

FORMAT = 2
READABLE = (1, 2)  # a manifest of format 1 says nothing of the link, which was the sigmoid
MOST_PROBABLE = "most probable class"
INTENDED_USE = "Research only: not a medical device, not for diagnosis or treatment of patients."
SUMS = "SHA256SUMS"
MANIFEST = "bundle.json"
GRAPH = "model.onnx"
GOLDEN = "golden.npz"
OUTPUTS = ("logits", "maps", "embedding")
MAX_MANIFEST_BYTES = 16 * 2**20


class Record(BaseModel):
    """A part of the manifest: immutable, nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Calibration(Record):
    """From logits to probabilities and decisions; all of it fitted on validation.

    By the sigmoid each finding has its temperature and its threshold. By the softmax exactly one class holds: one
    temperature for all, and no threshold, since the most probable class is called.
    """

    link: Literal["sigmoid", "softmax"] = "sigmoid"
    temperatures: tuple[Annotated[float, Field(gt=0)], ...]
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    rule: str

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, findings) -> calibrated probabilities, float64 in [0, 1]; by the softmax rows sum to 1."""
        scaled = np.asarray(logits, np.float64) / np.array(self.temperatures)
        return np.asarray(softmax(scaled, axis=1) if self.link == "softmax" else expit(scaled))

    def decisions(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, findings) -> bool (n, findings): whether the finding is called present."""
        return decide(probabilities, self.thresholds)


class Seen(Record):
    """What the training images were, so that others can be told apart from them."""

    sources: tuple[str, ...]
    views: tuple[str, ...]
    ages: tuple[float, float] | None
    typical_distance: float


class Training(Record):
    """How the model came to be."""

    engine: str
    architecture: str
    precision: str
    num_train: int
    num_val: int
    num_test: int
    num_patients: int
    balance: str = ""
    data_fingerprint: str
    split_method: str
    split_description: str
    split_hash: str
    leaky: bool
    leaks: tuple[str, ...] = ()
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float
    initial_weights: str
    initial_weights_citation: str
    initial_weights_licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DataSource(Record):
    """A data set that was trained on, with what its users owe it."""

    name: str
    citation: str
    terms: str


class Manifest(Record):
    """What `bundle.json` says."""

    format: Literal[1, 2] = 2
    name: str
    created: str
    intended_use: str = INTENDED_USE
    task: Literal["binary", "multilabel", "multiclass"]
    findings: tuple[str, ...]
    negatives: Literal["no-finding", "all-others"]
    size: Annotated[int, Field(ge=32, le=2048)]
    fit: Literal["squash", "pad", "crop"]
    calibration: Calibration
    seen: Seen
    training: Training
    data: tuple[DataSource, ...]
    recipe: dict[str, Any]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _agrees(self) -> "Manifest":
        calibration, classes = self.calibration, self.task == "multiclass"
        if classes != (calibration.link == "softmax"):
            raise ValueError(f"task {self.task} does not go with the link {calibration.link}")
        expected = (1, 0) if classes else (len(self.findings), len(self.findings))
        if (len(calibration.temperatures), len(calibration.thresholds)) != expected:
            raise ValueError(f"temperatures and thresholds of {self.task} should be {expected} in number")
        return self

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """The threshold of each finding; None for each where the most probable class is called."""
        return self.calibration.thresholds or (None,) * len(self.findings)


@dataclass(frozen=True)
class Golden:
    """An image and what the graph made of it when the bundle was sealed.

    Attributes:
        image: uint8 (size, size), grey value times 255; a phantom.
        logits: float32 (findings,).
        maps: float32 (findings, h, w).
        embedding: float32 (channels,).
        typical: float32 (2, channels), mean and deviation of the embedding over the validation images.
    """

    image: np.ndarray
    logits: np.ndarray
    maps: np.ndarray
    embedding: np.ndarray
    typical: np.ndarray


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole.

    Attributes:
        folder: Where it lies.
        hash: SHA-256 of its SHA256SUMS, 64 hexadecimal digits.
        manifest: What it says of itself.
        graph: The bytes of `model.onnx`, as hashed.
        golden: Its golden input and outputs.
    """

    folder: Path
    hash: str
    manifest: Manifest
    graph: bytes
    golden: Golden


def write(
    folder: Path, manifest: Manifest, *, graph: Path, weights: Sequence[Path], golden: Golden
) -> Bundle:
    """Seals a bundle; the folder appears whole or not at all.

    Args:
        folder: Where to; one that is there is replaced.
        manifest: What it says of itself.
        graph: The ONNX file.
        weights: Native weights, copied into `weights/`.
        golden: An image with the graph's outputs.
    """
    with replacing_folder(folder) as temporary:
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(graph, temporary / GRAPH)
        (temporary / "weights").mkdir()
        for file in weights:
            shutil.copyfile(file, temporary / "weights" / file.name)
        np.savez(temporary / GOLDEN, **{name: getattr(golden, name) for name in Golden.__dataclass_fields__})
        lines = [
            f"{hashlib.sha256((temporary / name).read_bytes()).hexdigest()}  {name}\n"
            for name in _files(temporary)
        ]
        (temporary / SUMS).write_text("".join(lines), encoding="ascii")
    return read(folder)


def read(folder: Path, *, expect: str | None = None) -> Bundle:
    """Reads a bundle: every file listed and none unlisted, hashes, format, graph, and only then its content.

    The golden output is checked where the graph first runs: `runtime.load`.

    Args:
        folder: The bundle, or a run's folder that holds one.
        expect: The hash that it must have, or its beginning (at least 8 digits).

    Raises:
        UsageError: There is no bundle.
        BundleError: It is damaged, incomplete, of another format, or not the one expected.
    """
    folder = _find(folder)
    listed, own_hash = _read_sums(folder)
    if expect is not None:
        if not re.fullmatch(r"[0-9a-f]{8,64}", expect):
            raise UsageError(f"{expect!r} is not a bundle's hash: 8 to 64 hexadecimal digits expected")
        if not own_hash.startswith(expect):
            raise BundleError(f"{folder} is bundle {own_hash[:16]}, not the expected {expect}")
    present = set(_files(folder))
    for name in sorted(present - set(listed)):
        raise BundleError(
            f"{folder} holds a file that is not sealed in it: {name}; remove it or get the bundle anew"
        )
    for name in sorted(set(listed) - present):
        raise BundleError(f"{folder} lacks {name}; get the bundle anew")
    contents = {}
    for name, digest in listed.items():
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(f"{folder}: {name} was changed after sealing; get the bundle anew")
        if not name.startswith("weights/"):
            contents[name] = content
    for name in (MANIFEST, GRAPH, GOLDEN):
        if name not in contents:
            raise BundleError(f"{folder} lacks {name}; it is no complete bundle")
    manifest = _parse_manifest(contents[MANIFEST])
    _check_graph(contents[GRAPH])
    return Bundle(folder, own_hash, manifest, contents[GRAPH], _parse_golden(contents[GOLDEN], manifest))


def decide(probabilities: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """Calls findings.

    Args:
        probabilities: (n, findings), calibrated.
        thresholds: (findings,), present being called from there on; empty where exactly one class holds, so that the
            most probable one is called, the first among equals.

    Returns:
        bool (n, findings): called present.
    """
    if len(thresholds):
        return np.asarray(probabilities >= np.asarray(thresholds))
    return np.asarray(probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1]))


def _find(folder: Path) -> Path:
    for candidate in (folder, folder / "bundle"):
        if (candidate / SUMS).is_file():
            return candidate
    if not folder.exists():
        raise UsageError(
            f"{folder} does not exist; give a bundle's folder, or a run's folder that holds bundle/"
        )
    if (folder / MANIFEST).exists() or (folder / GRAPH).exists():
        raise BundleError(f"{folder} lacks {SUMS}; it is no complete bundle, get it anew")
    raise UsageError(
        f"{folder} is not a bundle: it has no {SUMS}; give a bundle's folder or a finished run's folder"
    )


def _read_sums(folder: Path) -> tuple[dict[str, str], str]:
    content = (folder / SUMS).read_bytes()
    listed: dict[str, str] = {}
    for line in content.decode("ascii", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]+)", line)
        if not match:
            raise BundleError(f"{folder}: {SUMS} is damaged; get the bundle anew")
        name = match[2]
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name in listed or name == SUMS:
            raise BundleError(f"{folder}: {SUMS} lists {name!r}, which no bundle holds")
        listed[name] = match[1]
    return listed, hashlib.sha256(content).hexdigest()


def _files(folder: Path) -> list[str]:
    """Every file of a bundle but its sums, by relative POSIX path; anything that is not a plain file is refused."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{folder} holds {name}, which is not a plain file; a bundle holds only those")
        if path.is_file() and name != SUMS:
            names.append(name)
    return names


def _parse_manifest(content: bytes) -> Manifest:
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST} is {len(content):,} bytes; at most {MAX_MANIFEST_BYTES:,} expected")
    try:
        values = json.loads(content)
        number = values.get("format") if isinstance(values, dict) else None
        if number not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise BundleError(f"bundle format {number!r}; this version of Hilum reads formats {known}")
        return Manifest.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        detail = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        where = f": {'.'.join(map(str, detail['loc']))} {detail['msg']}" if detail else ""
        raise BundleError(f"{MANIFEST} is not a manifest{where}") from None


def _check_graph(content: bytes) -> None:
    """Refuses what is no graph, reaches outside its file, or has other inputs and outputs than the contract's."""
    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError) as error:
        raise BundleError(f"{GRAPH} is not an ONNX model ({error})") from None
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(f"{GRAPH} keeps data outside its file; a bundle's graph is one file")
    inputs = {value.name for value in model.graph.input} - {value.name for value in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    if inputs != {"image"} or sorted(outputs) != sorted(OUTPUTS):
        raise BundleError(
            f"{GRAPH} takes {sorted(inputs)} and gives {outputs}; image in and {', '.join(OUTPUTS)} out expected"
        )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, those in attributes, subgraphs and functions included."""
    graphs: list[Any] = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs.extend(
                graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.initializer
            )


def _parse_golden(content: bytes, manifest: Manifest) -> Golden:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            golden = Golden(**{name: file[name] for name in Golden.__dataclass_fields__})
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise BundleError(f"{GOLDEN} is damaged ({error})") from None
    size = manifest.size
    if golden.image.shape != (size, size) or golden.image.dtype != np.uint8:
        raise BundleError(f"{GOLDEN}: its image is {golden.image.shape}, {(size, size)} of uint8 expected")
    return golden
