"""`hilum data audit`: rates of indexing, hashing, looking for copies and comparing metadata, and how they grow.

The peer is what scripts do: a 64-bit hash a picture (OpenCV's DCT, as in pHash) and all pairs compared, in NumPy. It
looks at no turn and no mirror image; which of the changed copies it finds is told beside. Pictures are drawn: two of
500 phantoms are mixed, moved and lit anew. Each size runs in a process of its own, whose peak memory is told.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from hilum.data import cache, readers
from hilum.data.audit import duplicates
from hilum.data.audit.association import associations
from hilum.data.audit.leakage import compare
from hilum.data.phantom import phantom
from hilum.data.table import Source, Table, make_frame

SIZES = (1_000, 10_000, 100_000)
PLANTED = 200
FILES, FILE_SIDE = 400, 1024
DISTANCE = 10
"""Bits of 64: the usual limit of the peer."""

FINDINGS = ("Mass", "Nodule", "Edema", "Effusion")


def main() -> None:
    _rates_of_files()
    before = None
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.audit", str(size)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        growth = ""
        if before:
            ratio = told["search"] / before["search"]
            growth = f"; {size / before['size']:.0f} times the pictures take {ratio:.1f} times as long"
        print(
            f"{size:,} pictures: copies {told['search']:.1f} s ({size / told['search']:,.0f} pictures/s), found "
            f"{told['found']} of {PLANTED} planted and {told['others']} others; all pairs of 64-bit hashes "
            f"{told['peer']:.1f} s, found {told['peer_found']} of {PLANTED} and {told['peer_others']:,} others; "
            f"metadata {told['metadata']:.1f} s; peak memory {told['memory']:.2f} GiB "
            f"({told['added']:.2f} of it for the search){growth}",
            flush=True,
        )
        before = told


def _rates_of_files() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = [f"{number:08d}_000.png" for number in range(FILES)]
        (folder / "images").mkdir()
        for number, name in enumerate(names):
            cv2.imwrite(str(folder / "images" / name), phantom(number % 20, FILE_SIDE, ()))
        header = (
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
            "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
        )
        rows = "".join(
            f"{name},No Finding,0,{number},58,M,PA,2682,2749,0.143,0.143\n"
            for number, name in enumerate(names)
        )
        (folder / "Data_Entry_2017_v2020.csv").write_text(header + rows)
        table = readers.read(folder)
        started = time.perf_counter()
        cache.build(table, size=duplicates.SIDE, fit="squash", directory=folder / "cache")
        seconds = time.perf_counter() - started
        print(f"reading and hashing {FILES} PNG files of {FILE_SIDE} pixels: {FILES / seconds:,.0f} images/s")
        lines = "".join(
            f"{number:08d}_{number % 7:03d}.png,Mass|Edema,0,{number // 4},58,M,PA,2682,2749,0.143,0.143\n"
            for number in range(SIZES[-1])
        )
        (folder / "labels").mkdir()
        (folder / "labels" / "Data_Entry_2017_v2020.csv").write_text(header + lines)
        started = time.perf_counter()
        readers.read(folder / "labels" / "Data_Entry_2017_v2020.csv")
        seconds = time.perf_counter() - started
        print(f"indexing {SIZES[-1]:,} rows of NIH's CSV file: {SIZES[-1] / seconds:,.0f} rows/s")


def _measure(size: int) -> None:
    """Measures one size and prints it as JSON."""
    squares, planted = _squares(size)
    table = _table(size)
    held = _peak()
    told: dict[str, float] = {"size": size}

    started = time.perf_counter()
    pairs = duplicates.find(squares, np.arange(size))
    told["search"] = time.perf_counter() - started
    told["memory"] = _peak()
    told["added"] = told["memory"] - held
    found = {(pair.first, pair.second) for pair in pairs}
    told["found"], told["others"] = len(found & planted), len(found - planted)

    started = time.perf_counter()
    compare(table)
    associations(table)
    told["metadata"] = time.perf_counter() - started

    started = time.perf_counter()
    theirs, others = _all_pairs(squares, planted)
    told["peer"] = time.perf_counter() - started
    told["peer_found"], told["peer_others"] = theirs, others
    print(json.dumps(told))


def _squares(size: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Pictures, the last of them changed copies of the first: turned, mirrored or re-encoded; and which is which."""
    rng = np.random.default_rng(0)
    drawn = np.stack([phantom(number, 96, ()) for number in range(500)]).astype(np.float32)
    squares = np.empty((size, duplicates.SIDE, duplicates.SIDE), np.uint8)
    for row in range(size - PLANTED):
        one, other = rng.integers(0, len(drawn), 2)
        share, gamma = rng.uniform(0.5, 0.8), rng.uniform(0.7, 1.4)
        mixed = share * drawn[one] + (1 - share) * np.roll(drawn[other], rng.integers(-6, 7, 2), axis=(0, 1))
        matrix = cv2.getRotationMatrix2D((48, 48), rng.uniform(-4, 4), rng.uniform(0.9, 1.15))
        matrix[:, 2] += rng.uniform(-4, 4, 2)
        moved = cv2.warpAffine(mixed, matrix, (96, 96), borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(moved, (duplicates.SIDE, duplicates.SIDE), interpolation=cv2.INTER_AREA)
        squares[row] = 255 * np.clip(small / 255, 0, 1) ** gamma
    for number in range(PLANTED):
        square = squares[number]
        if number % 4 == 1:
            square = square[:, ::-1]
        if number % 4 > 1:
            matrix = cv2.getRotationMatrix2D((31.5, 31.5), rng.uniform(-5, 5), 1)
            square = cv2.warpAffine(square, matrix, (64, 64), borderMode=cv2.BORDER_REPLICATE)
        _, content = cv2.imencode(".jpg", np.ascontiguousarray(square), [cv2.IMWRITE_JPEG_QUALITY, 60])
        squares[size - PLANTED + number] = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return squares, {(number, size - PLANTED + number) for number in range(PLANTED)}


def _table(size: int) -> Table:
    rng = np.random.default_rng(1)
    frame = make_frame(
        image=[f"{row}.png" for row in range(size)],
        source="drawn",
        patient=[f"p{row // 4}" for row in range(size)],
        findings=FINDINGS,
        labels=rng.random((size, len(FINDINGS))) < 0.1,
        view=rng.choice(["AP", "PA"], size),
        sex=rng.choice(["F", "M"], size),
        age=rng.integers(1, 95, size),
        split=np.repeat(["train", "test"], [size - size // 5, size // 5]),
    )
    return Table(frame, FINDINGS, (Source("drawn", Path("/"), "", ""),))


def _all_pairs(squares: np.ndarray, planted: set[tuple[int, int]]) -> tuple[int, int]:
    """How many planted pairs, and others, all pairs of 64-bit DCT hashes find."""
    low = np.stack(
        [
            cv2.dct(cv2.resize(one, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[:8, :8]
            for one in squares
        ]
    ).reshape(-1, 64)
    hashes = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0]
    found = others = 0
    for row in range(len(hashes) - 1):
        near = np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= DISTANCE) + row + 1
        right = sum((row, int(other)) in planted for other in near) if row < PLANTED else 0
        found, others = found + right, others + len(near) - right
    return found, others


def _peak() -> float:
    """GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
