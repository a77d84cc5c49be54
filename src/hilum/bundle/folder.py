"""A sealed folder <-> a Bundle: one framework-free model with all that is needed to use and to judge it.

    bundle.json        the manifest: findings, calibration, what was seen in training, recipe, licences
    model.onnx         the graph: image -> logits, maps, embedding
    weights/           the same weights for the framework that trained them
    golden.npz         a phantom and what the graph makes of it
    calibrated_on.npz  of a recalibrated bundle: fingerprints of the images that calibrated it
    SHA256SUMS         over every other file; its own SHA-256 is the bundle's hash, its name everywhere

Files that macOS and Windows leave beside these (`.DS_Store`, `Thumbs.db`, `desktop.ini`) are told and never read.
Hashes prove that nothing changed, not who made it: whoever must know that pins the hash (`expect`).
"""

import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from hilum.bundle.manifest import READABLE, Manifest
from hilum.errors import BundleError, UsageError
from hilum.files import check_writable, is_system_file, replacing_folder

_log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
MANIFEST = "bundle.json"
GRAPH = "model.onnx"
GOLDEN = "golden.npz"
CALIBRATED_ON = "calibrated_on.npz"
OUTPUTS = ("logits", "maps", "embedding")
MAX_MANIFEST_BYTES = 16 * 2**20


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
        calibrated_on: uint8 (n, 16): fingerprints of the images that recalibrated it (`evaluation.cohort`).
    """

    folder: Path
    hash: str
    manifest: Manifest
    graph: bytes
    golden: Golden
    calibrated_on: np.ndarray

    @property
    def weights(self) -> list[Path]:
        """The sealed files in `weights/`."""
        return [self.folder / name for name in _files(self.folder) if name.startswith("weights/")]


NOTHING = np.zeros((0, 16), np.uint8)


def check_new(folder: Path) -> None:
    """Refuse a folder that cannot become a new bundle's.

    Raises:
        UsageError: It is there already, lies inside a bundle, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; give a new folder with -o")
    if (folder.parent / SUMS).exists():
        raise UsageError(
            f"{folder} lies inside a bundle, which would be no longer whole; give another folder with -o"
        )
    check_writable(folder)


def write_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    graph: Path,
    weights: Sequence[Path],
    golden: Golden,
    calibrated_on: np.ndarray = NOTHING,
) -> Bundle:
    """Seal a bundle and read it back; the folder appears whole or not at all.

    Args:
        folder: Where to; one that is there is replaced.
        manifest: What it says of itself.
        graph: The ONNX file.
        weights: Native weights, copied into `weights/`.
        golden: An image with the graph's outputs.
        calibrated_on: Fingerprints, uint8 (n, 16), of the images of another site that calibrated it.
    """
    with replacing_folder(folder) as temporary:
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(graph, temporary / GRAPH)
        (temporary / "weights").mkdir()
        for file in weights:
            shutil.copyfile(file, temporary / "weights" / file.name)
        np.savez(temporary / GOLDEN, **{name: getattr(golden, name) for name in Golden.__dataclass_fields__})
        if len(calibrated_on):
            np.savez(temporary / CALIBRATED_ON, fingerprints=calibrated_on)
        lines = [
            f"{hashlib.sha256((temporary / name).read_bytes()).hexdigest()}  {name}\n"
            for name in _files(temporary)
        ]
        (temporary / SUMS).write_text("".join(lines), encoding="ascii")
    return read_bundle(folder)


def read_bundle(folder: Path, *, expect: str | None = None) -> Bundle:
    """Read a bundle: every file listed and none unlisted, hashes, format, graph, and only then its content.

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
    _tell_of_system_files(folder)
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
    golden = _parse_golden(contents[GOLDEN], manifest)
    calibrated_on = _parse_fingerprints(contents.get(CALIBRATED_ON), manifest)
    return Bundle(folder, own_hash, manifest, contents[GRAPH], golden, calibrated_on)


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
    """Return every file of a bundle but its sums, by relative POSIX path; refuse anything that is not a plain file.

    What macOS and Windows leave in folders that are looked at is passed over, and never read.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{folder} holds {name}, which is not a plain file; a bundle holds only those")
        if path.is_file() and name != SUMS and not is_system_file(path.name):
            names.append(name)
    return names


def _tell_of_system_files(folder: Path) -> None:
    names = sorted(path.name for path in folder.rglob("*") if is_system_file(path.name))
    if names:
        _log.warning(
            "%s holds %s, left there by the system; not sealed in the bundle and not read",
            *(folder, ", ".join(names)),
        )


def _parse_manifest(content: bytes) -> Manifest:
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST} is {len(content):,} bytes; at most {MAX_MANIFEST_BYTES:,} expected")
    try:
        values = json.loads(content)
        number = values.get("format") if isinstance(values, dict) else None
        if number not in READABLE:
            known = ", ".join(map(str, READABLE))
            raise BundleError(f"bundle format {number!r}; this version of Hilum reads formats {known}")
        return Manifest.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        detail = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        where = f": {'.'.join(map(str, detail['loc']))} {detail['msg']}" if detail else ""
        raise BundleError(f"{MANIFEST} is not a manifest{where}") from None


def _check_graph(content: bytes) -> None:
    """Refuse a file that is no graph, reaches outside itself, or has other inputs and outputs than the contract's."""
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
    """Yield every tensor of a model, those in attributes, subgraphs and functions included."""
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
    size = manifest.input.size
    if golden.image.shape != (size, size) or golden.image.dtype != np.uint8:
        raise BundleError(f"{GOLDEN}: its image is {golden.image.shape}, {(size, size)} of uint8 expected")
    return golden


def _parse_fingerprints(content: bytes | None, manifest: Manifest) -> np.ndarray:
    if (content is not None) != manifest.knows_images:
        raise BundleError(
            f"{MANIFEST} and {CALIBRATED_ON} do not agree on whether the bundle was recalibrated"
        )
    if content is None:
        return NOTHING
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            fingerprints = file["fingerprints"]
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise BundleError(f"{CALIBRATED_ON} is damaged ({error})") from None
    if fingerprints.ndim != 2 or fingerprints.shape[1] != 16 or fingerprints.dtype != np.uint8:
        raise BundleError(
            f"{CALIBRATED_ON} holds {fingerprints.dtype} {fingerprints.shape}, uint8 (n, 16) expected"
        )
    return np.asarray(fingerprints)
