"""Prepared squares -> which rows hold the same picture: turned, mirrored, resized and re-encoded copies too.

Chest films look alike, so this goes in three steps, none of which compares all with all:

1. Hash. A square's fine structure (contrast against its surroundings, evened out, within a disc) becomes a unit
   vector of low frequencies. `TABLES` tables of `BITS` random hyperplanes each sort the vectors of all pictures; the
   vectors of each picture seen in `VIEWS` ways (turned, shrunk as by a turn that enlarges the canvas, mirrored) are
   looked up in them (Charikar 2002, STOC: two vectors at the angle a agree in a bit with probability 1 - a / pi).
2. Candidates are pairs whose vectors correlate by `ALIKE` in some view.
3. Verification. The candidate is registered (Evangelidis and Psarakis 2008, IEEE TPAMI 30) and the structure of
   one to four pixels' size compared: a correlation of `SAME` is the same picture.

A second film of the same patient stays below `SAME`, since heart, breath and posture differ; how far below is told
in the project's docs/data.md.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hilum.errors import UsageError

Floats = NDArray[np.float32]
Squares = NDArray[np.uint8]

SIDE = 64
"""Pixels of the squares that are compared."""

ALIKE, SAME = 0.955, 0.85
"""Correlations from which on two pictures are candidates, and the same."""

BITS, TABLES = 32, 40
"""Of the hash. At a correlation of 0.98 one view alone is found with a probability of 0.993, at 0.99 of 0.9998."""

_COARSE, _FREQUENCIES = 32, 16
_CHUNK = 1024
_FLAT = 0.5
_BUCKET, _BEST = 256, 8
"""At most so many of a bucket are looked at, and so many of a picture's candidates verified: where more are alike
they are alike to one another, and still end in one group."""


@dataclass(frozen=True)
class View:
    """One way to look at a picture.

    Attributes:
        mirrored: Left and right are exchanged first.
        degrees: It is then turned counter-clockwise.
        scale: And shrunk.
    """

    mirrored: bool
    degrees: float
    scale: float = 1.0

    def matrix(self, side: int) -> Floats:
        """Return the affine map (2, 3) from a square of `side` pixels to what the view shows."""
        turned = np.vstack(
            [cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, self.degrees, self.scale), [0, 0, 1]]
        )
        mirror = np.array([[-1, 0, side - 1], [0, 1, 0], [0, 0, 1]] if self.mirrored else np.eye(3), float)
        return np.asarray((turned @ mirror)[:2], np.float32)


def _views() -> tuple[View, ...]:
    """Turn of at most one degree from any of -5 to 5, with the canvas kept and enlarged, plain and mirrored."""
    kept = [(degrees, 1.0) for degrees in (0.0, -4.0, -2.0, 2.0, 4.0)]
    angles = np.radians([2.5, 4.5])
    enlarged = [
        (sign * degrees, float(1 / (np.cos(angle) + np.sin(angle))))
        for degrees, angle in zip((2.5, 4.5), angles, strict=True)
        for sign in (-1, 1)
    ]
    return tuple(View(mirrored, *turn) for mirrored in (False, True) for turn in kept + enlarged)


VIEWS = _views()


@dataclass(frozen=True)
class DuplicatePair:
    """Two rows that hold the same picture.

    Attributes:
        first: The lower row.
        second: The higher row.
        correlation: Of the registered pictures' structure, at most 1; 1 where the squares are equal.
        mirrored: One is the other's mirror image.
        degrees: By how much one is turned against the other, 0 or more.
        exact: The files' decoded pixels are equal; `find`, which sees squares only, leaves this open.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool = False
    degrees: float = 0.0
    exact: bool = False


def digests(pixels: Squares, slots: NDArray[np.int64]) -> NDArray[np.void]:
    """Hash squares: 16 bytes (rows,), equal where the squares are, pixel for pixel.

    Args:
        pixels: uint8 (slots, size, size), perhaps a memory map.
        slots: (rows,), which square is a row's.
    """
    used, of_row = np.unique(slots, return_inverse=True)
    hashes = [hashlib.blake2b(pixels[slot].tobytes(), digest_size=16).digest() for slot in used]
    return np.array(hashes, dtype="V16")[of_row.reshape(-1)]


def find(
    pixels: Squares,
    slots: NDArray[np.int64],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[DuplicatePair, ...]:
    """Find what is the same picture, whatever was done to its file.

    Found are copies that were re-encoded, resized (also to another aspect), turned by up to 5 degrees, mirrored, or
    several of these. Of equal squares, each is paired with the first alone; so is a group of very many copies not
    paired all with all: use `groups`.

    Args:
        pixels: uint8 (slots, SIDE, SIDE), perhaps a memory map.
        slots: (rows,), which square is a row's; equal squares are looked up once.
        on_progress: Called with how many pictures were looked up, and of how many.

    Returns:
        The pairs, the most alike first.

    Raises:
        UsageError: The squares are of another size.
    """
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE):
        raise UsageError(f"squares are {pixels.shape}; expected (slots, {SIDE}, {SIDE})")
    _, firsts, number = np.unique(digests(pixels, slots), return_index=True, return_inverse=True)
    repeated = np.flatnonzero(firsts[number] != np.arange(len(slots)))
    equal = [DuplicatePair(int(firsts[number[row]]), int(row), 1.0) for row in repeated]
    near = [_renamed(pair, firsts) for pair in _near(pixels, slots[firsts], on_progress)]
    return tuple(sorted([*equal, *near], key=lambda pair: -pair.correlation))


def groups(pairs: Sequence[DuplicatePair], num_rows: int) -> NDArray[np.int64]:
    """Number the pictures: int64 (num_rows,), equal for rows that pairs connect."""
    ends = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), ends.T), shape=(num_rows, num_rows))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _renamed(pair: DuplicatePair, rows: NDArray[np.int64]) -> DuplicatePair:
    first, second = sorted((int(rows[pair.first]), int(rows[pair.second])))
    return replace(pair, first=first, second=second)


def _near(
    pixels: Squares, slots: NDArray[np.int64], on_progress: Callable[[int, int], None] | None
) -> Iterator[DuplicatePair]:
    """Yield the pairs among different squares, as places in `slots`, each once."""
    known: set[tuple[int, int]] = set()
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hilum-copies") as pool:
        hashed = _Hashed(pixels, slots, pool)
        for start in range(0, len(slots), _CHUNK):
            stop = min(start + _CHUNK, len(slots))
            jobs = [
                (query, other, view)
                for query, other, view in hashed.candidates(start, stop)
                if (query, other) not in known and (other, query) not in known
            ]
            for pair in pool.map(lambda job: _verified(pixels, slots, *job), jobs):
                if pair.correlation >= SAME and (pair.first, pair.second) not in known:
                    known.add((pair.first, pair.second))
                    yield pair
            if on_progress:
                on_progress(stop, len(slots))


class _Hashed:
    """The pictures' vectors in hash tables.

    It holds `TABLES` keys and places and one vector of about a thousand bytes a picture, and a chunk's work besides.
    """

    def __init__(self, pixels: Squares, slots: NDArray[np.int64], pool: ThreadPoolExecutor) -> None:
        self._pixels, self._slots, self._pool = pixels, slots, pool
        self._views = [_projection(view) for view in VIEWS]
        chunks = [(start, min(start + _CHUNK, len(slots))) for start in range(0, len(slots), _CHUNK)]
        self._vectors = np.concatenate(
            [_unit(self._structure(*chunk) @ self._views[0]) for chunk in chunks]
            or [np.empty((0, self._views[0].shape[1]), np.float32)]
        )
        # What all chest films share says nothing; of few pictures the mean says more of them than of chest films.
        self._middle = self._vectors.sum(axis=0) / (len(slots) + 200)
        self._planes = (
            np.random.default_rng(0).normal(size=(len(self._middle), TABLES * BITS)).astype(np.float32)
        )
        keys = np.concatenate(
            [self._keys(self._vectors[slice(*chunk)]) for chunk in chunks] or [self._keys(self._vectors)]
        )
        self._places = np.argsort(keys, axis=0, kind="stable").astype(np.int32)
        self._sorted = np.take_along_axis(keys, self._places, axis=0).T.copy()
        self._places = self._places.T.copy()

    def candidates(self, start: int, stop: int) -> Iterator[tuple[int, int, View]]:
        """Yield picture, other picture and the view in which the first looks most like the other."""
        structure = self._structure(start, stop)
        best: dict[int, list[tuple[float, int, View]]] = {}
        for view, projection in zip(VIEWS, self._views, strict=True):
            vectors = _unit(structure @ projection)
            queries, others = self._looked_up(self._keys(vectors), start)
            correlations = np.einsum("ij,ij->i", vectors[queries - start], self._vectors[others])
            for place in np.flatnonzero(correlations >= ALIKE):
                best.setdefault(int(queries[place]), []).append(
                    (float(correlations[place]), int(others[place]), view)
                )
        for query, found in best.items():
            seen: set[int] = set()
            for _, other, view in sorted(found, key=lambda one: -one[0]):
                if other not in seen and len(seen) < _BEST:
                    seen.add(other)
                    yield query, other, view

    def _looked_up(self, keys: NDArray[np.uint32], start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Yield each pair of a picture (the first key's is `start`) and another in one bucket with it once."""
        codes = []
        count = len(self._slots)
        for table in range(TABLES):
            low = np.searchsorted(self._sorted[table], keys[:, table])
            high = np.searchsorted(self._sorted[table], keys[:, table], side="right")
            sizes = np.minimum(high - low, _BUCKET)
            queries = np.repeat(np.arange(len(keys)), sizes)
            within = np.arange(len(queries)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            others = self._places[table][low[queries] + within]
            codes.append((queries + start) * count + others)
        queries, others = np.divmod(np.unique(np.concatenate(codes)), count)
        apart = queries != others
        return queries[apart], others[apart]

    def _keys(self, vectors: Floats) -> NDArray[np.uint32]:
        """Hash vectors: (rows, TABLES)."""
        bits = np.packbits((vectors - self._middle) @ self._planes > 0, axis=1)
        return np.ascontiguousarray(bits).view(np.uint32)

    def _structure(self, start: int, stop: int) -> Floats:
        chosen = [self._pixels[slot] for slot in self._slots[start:stop]]
        return np.stack(list(self._pool.map(_coarse, chosen)))


def _coarse(square: Squares) -> Floats:
    small = cv2.resize(square, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _evened(small, spread=_COARSE / 8).ravel()


def _evened(picture: NDArray[Any], *, spread: float) -> Floats:
    """Fine structure: the difference from the surroundings (a Gaussian of `spread` pixels) over its local deviation.

    Two grey levels are added to the deviation, so that what is almost flat does not become all noise.
    """
    fine = picture - cv2.GaussianBlur(picture, (0, 0), spread)
    deviation = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 1.5 * spread))
    return np.asarray(fine / (deviation + 2), np.float32)


@functools.cache
def _disc(side: int, radius: float) -> Floats:
    """1 within a disc about the centre, falling to 0 at `radius` half sides: no turn moves a border into it."""
    across = (2 * np.arange(side) + 1) / side - 1
    distance = np.hypot(across[:, None], across)
    return np.clip((radius - distance) / 0.2, 0, 1).astype(np.float32)


@functools.cache
def _projection(view: View) -> Floats:
    """Return the matrix (pixels, numbers) from a flattened coarse structure to its view in low frequencies."""
    pixels = _COARSE**2
    matrix = view.matrix(_COARSE)
    shown = np.stack(
        [
            cv2.warpAffine(pixel, matrix, (_COARSE, _COARSE), borderMode=cv2.BORDER_REPLICATE)
            for pixel in np.eye(pixels, dtype=np.float32).reshape(-1, _COARSE, _COARSE)
        ]
    )
    waves = dct(np.eye(_COARSE), axis=0, norm="ortho")[:_FREQUENCIES]
    low = np.einsum("ay,bx->abyx", waves, waves).reshape(-1, pixels)[1:]
    return np.asarray((shown * _disc(_COARSE, 0.92)).reshape(pixels, pixels) @ low.T, np.float32)


def _unit(vectors: Floats) -> Floats:
    """Vectors of length 1; of a picture without structure, 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > _FLAT, vectors / np.maximum(length, _FLAT), 0).astype(np.float32)


def _verified(pixels: Squares, slots: NDArray[np.int64], query: int, other: int, view: View) -> DuplicatePair:
    """Register one square with another, of which it looks like a view, and compare them."""
    moving, fixed = (pixels[slots[place]].astype(np.float32) for place in (query, other))
    warp = cv2.invertAffineTransform(view.matrix(SIDE))
    mask = (_disc(SIDE, 0.85) * 255).astype(np.uint8)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    with contextlib.suppress(cv2.error):  # it does not converge on what is not alike
        _, warp = cv2.findTransformECC(
            _evened(fixed, spread=4),
            _evened(moving, spread=4),
            warp.astype(np.float32),
            cv2.MOTION_AFFINE,
            criteria,
            mask,
            3,
        )
    moved = cv2.warpAffine(
        moving,
        warp,
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    first, second = sorted((query, other))
    correlation = _correlation(_evened(moved, spread=2), _evened(fixed, spread=2), _disc(SIDE, 0.85))
    across = -warp[0, 0] if view.mirrored else warp[0, 0]
    degrees = abs(float(np.degrees(np.arctan2(warp[1, 0] * (-1 if view.mirrored else 1), across))))
    return DuplicatePair(first, second, correlation, view.mirrored, degrees)


def _correlation(first: Floats, second: Floats, weights: Floats) -> float:
    """Pearson's, weighted."""
    total = weights.sum()
    first, second = (values - (values * weights).sum() / total for values in (first, second))
    product = np.sqrt((weights * first**2).sum() * (weights * second**2).sum())
    return float((weights * first * second).sum() / product) if product else 0.0
