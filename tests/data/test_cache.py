import contextlib
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
from PIL import Image

from hilum import files, images
from hilum.data import cache
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, ImageError, UsageError

SIZE = 32


def table_of(root: Path, names: list[str]) -> Table:
    frame = make_frame(
        image=names,
        source="test",
        patient=[str(number) for number in range(len(names))],
        findings=["Pneumonia"],
        labels=np.zeros((len(names), 1)),
    )
    return Table(frame=frame, findings=("Pneumonia",), sources=(Source("test", root, "", ""),))


def picture(seed: int, *, width: int = 40, height: int = 36, bits: int = 8) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 2**bits, (height, width))
    return Image.fromarray(values.astype(np.uint8 if bits == 8 else np.uint16))


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, "PNG")
    return stream.getvalue()


def folder_of(root: Path, count: int) -> Table:
    root.mkdir(exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        (root / name).write_bytes(png(number))
    return table_of(root, names)


def build(table: Table, tmp_path: Path, **options: object) -> cache.Cached:
    return cache.build(table, **{"size": SIZE, "fit": "squash", "directory": tmp_path / "cache", **options})  # type: ignore[arg-type]


def prepared(table: Table, *, size: int = SIZE, fit: str = "squash") -> np.ndarray:
    return np.stack([images.prepare(table.location(row), size, fit).pixels for row in range(len(table))])


def no_reading(*_: object) -> bytes:
    raise AssertionError("a file was read")


# The same pixels as prepare


@pytest.mark.parametrize("fit", images.FITS)
def test_cached_pixels_are_those_of_prepare(tmp_path: Path, fit: str) -> None:
    picture(0).save(tmp_path / "a.png")
    picture(1, bits=16).save(tmp_path / "sixteen.png")
    picture(2, width=700, height=500).resize((1400, 1000)).save(tmp_path / "large.jpeg")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("folder/b.png", png(3))
    table = table_of(tmp_path, ["a.png", "sixteen.png", "large.jpeg", "archive.zip::folder/b.png"])

    cached = build(table, tmp_path, fit=fit)

    np.testing.assert_array_equal(cached.images(np.arange(4)), prepared(table, fit=fit))
    assert any(
        "scale" in step for step in images.prepare(tmp_path / "large.jpeg", SIZE, fit).provenance.steps
    )


def test_a_packed_archive_is_read_from_its_front_to_its_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for number in range(6):
            content = png(number)
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    table = table_of(tmp_path, [f"a.tar.gz::{number}.png" for number in (4, 0, 5, 2, 1, 3)])
    read, read_bytes = [], images.read_bytes
    monkeypatch.setattr(cache, "_num_cores", lambda: 1)
    monkeypatch.setattr(images, "read_bytes", lambda place: read.append(place.member) or read_bytes(place))
    cached = build(table, tmp_path)
    assert read == [f"{number}.png" for number in range(6)]
    np.testing.assert_array_equal(cached.images(np.arange(6)), prepared(table))


def test_sizes_of_originals_are_kept(tmp_path: Path) -> None:
    picture(0, width=50, height=70).save(tmp_path / "a.png")
    table = table_of(tmp_path, ["a.png"])
    for _ in range(2):
        cached = build(table, tmp_path)
        assert (cached.width[0], cached.height[0]) == (50, 70)


def test_each_size_and_fit_is_a_cache_of_its_own(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 3)
    build(table, tmp_path)
    padded = build(table, tmp_path, size=48, fit="pad")
    assert padded.hits == 0
    np.testing.assert_array_equal(padded.images(np.arange(3)), prepared(table, size=48, fit="pad"))
    np.testing.assert_array_equal(build(table, tmp_path).images(np.arange(3)), prepared(table))


def test_pixels_cannot_be_written_to(tmp_path: Path) -> None:
    assert not build(folder_of(tmp_path / "images", 1), tmp_path).pixels.flags.writeable


@pytest.mark.real
def test_real_radiographs_are_cached_as_prepare_gives_them(tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "nih" / "images"
    table = table_of(root, sorted(path.name for path in root.glob("*.png"))[:12])
    cached = build(table, tmp_path, size=224)
    np.testing.assert_array_equal(cached.images(np.arange(12)), prepared(table, size=224))


# Quarantine


def test_read_and_quarantined_are_the_input(tmp_path: Path) -> None:
    names = list(folder_of(tmp_path, 5).frame["image"])
    (tmp_path / "text.png").write_bytes(b"not an image")
    (tmp_path / "cut.png").write_bytes(png(0)[:600])
    (tmp_path / "empty.png").touch()
    Image.new("L", (8, 8)).save(tmp_path / "tiny.png")
    bad = ["text.png", "cut.png", "empty.png", "tiny.png", "missing.png", "no.zip::a.png"]
    order = [name for pair in zip(bad, [*names, "text.png"], strict=True) for name in pair][:-1]
    table = table_of(tmp_path, order)

    for _ in range(2):
        cached = build(table, tmp_path)
        assert list(cached.quarantine.columns) == ["image", "reason"]
        assert list(cached.quarantine["image"]) == bad
        assert cached.quarantine["reason"].str.len().gt(3).all()
        assert (cached.slots >= 0).sum() + len(cached.quarantine) == len(table) == 11
        good = np.flatnonzero(cached.slots >= 0)
        assert [order[row] for row in good] == names
        np.testing.assert_array_equal(cached.images(good), prepared(table_of(tmp_path, names)))
    assert cached.hits == 11 - 3, "of empty and missing files nothing is remembered"


def test_images_of_a_quarantined_row_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["missing.png"])
    cached = build(table, tmp_path)
    with pytest.raises(DataError, match="1 of 1 images could not be read"):
        cached.images(np.array([0]))
    assert cached.pixels.shape == (0, SIZE, SIZE)


def test_a_missing_file_is_looked_for_again(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["0.png"])
    assert len(build(table, tmp_path).quarantine) == 1
    folder_of(tmp_path, 1)
    assert len(build(table, tmp_path).quarantine) == 0


def test_too_little_memory_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = folder_of(tmp_path / "images", 1)

    def exhausted(*_: object) -> images.Prepared:
        try:
            raise MemoryError
        except MemoryError:
            raise ImageError("too large for the memory at hand") from None

    with monkeypatch.context() as patch:
        patch.setattr(images, "prepare", exhausted)
        assert list(build(table, tmp_path).quarantine["reason"]) == ["too large for the memory at hand"]
    assert len(build(table, tmp_path).quarantine) == 0


def test_other_decoders_try_again_what_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = folder_of(tmp_path / "images", 2)
    prepare = images.prepare

    def without_decoder(content: bytes, size: int, fit: str) -> images.Prepared:
        if content == png(1):
            raise ImageError("no decoder")
        return prepare(content, size, fit)

    with monkeypatch.context() as patch:
        patch.setattr(images, "prepare", without_decoder)
        assert len(build(table, tmp_path).quarantine) == 1
    assert len(build(table, tmp_path).quarantine) == 1, "the same decoders need not try again"
    monkeypatch.setattr(cache, "_decoders", lambda: "a new one")
    mended = build(table, tmp_path)
    assert (mended.hits, len(mended.quarantine)) == (1, 0)
    np.testing.assert_array_equal(mended.images(np.arange(2)), prepared(table))


# What is read again, and what is not


def test_a_second_build_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = folder_of(tmp_path / "images", 4)
    (tmp_path / "images" / "2.png").write_bytes(b"not an image")
    first = build(table, tmp_path)
    monkeypatch.setattr(images, "read_bytes", no_reading)
    second = build(table, tmp_path)
    assert (first.hits, second.hits) == (0, 4)
    np.testing.assert_array_equal(first.slots, second.slots)
    assert first.quarantine.equals(second.quarantine)


def test_a_complete_cache_needs_no_lock(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 2)
    build(table, tmp_path)
    with filelock.FileLock(tmp_path / "cache" / "squash-32-v1" / "build.lock"):
        assert build(table, tmp_path).hits == 2


def test_only_new_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(folder_of(tmp_path / "images", 3), tmp_path)
    table = folder_of(tmp_path / "images", 5)
    for row in range(3):
        os.utime(table.location(row).path, ns=(0, 0))
    build(table.select(np.arange(5) < 3), tmp_path)
    seen = []
    read_bytes = images.read_bytes
    monkeypatch.setattr(
        images, "read_bytes", lambda location: seen.append(location.path.name) or read_bytes(location)
    )
    assert build(table, tmp_path).hits == 3
    assert sorted(seen) == ["3.png", "4.png"]


def test_changed_content_is_noticed(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 2)
    build(table, tmp_path)
    path = table.location(1).path
    path.write_bytes(png(77))
    os.utime(path, ns=(1, 1))
    cached = build(table, tmp_path)
    assert cached.hits == 1
    np.testing.assert_array_equal(cached.images(np.arange(2)), prepared(table))


def test_a_changed_archive_is_noticed(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a.zip::x.png", "a.zip::y.png"])
    for seed in (1, 2):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("x.png", png(seed))
            archive.writestr("y.png", png(9))
        os.utime(tmp_path / "a.zip", ns=(seed, seed))
        cached = build(table, tmp_path)
        assert cached.hits == 0
        np.testing.assert_array_equal(cached.images(np.arange(2)), prepared(table))


def test_moved_files_are_read_but_not_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(folder_of(tmp_path / "old", 3), tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setattr(images, "prepare", no_reading)
    second = build(table_of(tmp_path / "new", ["0.png", "1.png", "2.png"]), tmp_path)
    np.testing.assert_array_equal(first.slots, second.slots)


def test_equal_content_shares_a_slot(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(png(name == "b.png"))
    cached = build(table_of(tmp_path, ["a.png", "b.png", "c.png"]), tmp_path)
    assert cached.slots.tolist() == [0, 1, 0]
    assert len(cached.pixels) == 2


# Crashes, full disks, several at once

CHILD = """
import sys, time
from pathlib import Path
from hilum.data import cache
from hilum.data.table import Table
cache._BLOCK = 4
cache.build(Table.read(Path(sys.argv[1])), size=32, fit="squash", directory=Path(sys.argv[2]),
            on_progress=lambda done, total: (print(done, flush=True), time.sleep(float(sys.argv[3]))))
"""


def start_child(
    table: Table, tmp_path: Path, *, pause: float = 0.0, before: str = ""
) -> subprocess.Popen[str]:
    table.write(tmp_path / "table.parquet")
    return subprocess.Popen(
        [sys.executable, "-c", before + CHILD, tmp_path / "table.parquet", tmp_path / "cache", str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path, seed: int) -> None:
    table = folder_of(tmp_path / "images", 60)
    chance = random.Random(seed)
    with start_child(table, tmp_path, pause=0.001) as child:
        assert child.stdout
        when = chance.randrange(5, 55)
        while int(child.stdout.readline()) < when:
            pass
        time.sleep(chance.random() * 0.01)
        child.kill()
    assert child.returncode == -signal.SIGKILL

    cached = build(table, tmp_path)

    assert 0 < cached.hits < 60
    assert len(cached.quarantine) == 0
    np.testing.assert_array_equal(cached.images(np.arange(60)), prepared(table))


def test_what_a_killed_build_left_beyond_the_index_is_overwritten(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 6)
    build(table.select(np.arange(6) < 3), tmp_path)
    with (tmp_path / "cache" / "squash-32-v1" / "pixels.u8").open("ab") as stream:
        stream.write(b"\xff" * (SIZE**2 + 17))
    cached = build(table, tmp_path)
    np.testing.assert_array_equal(cached.images(np.arange(6)), prepared(table))
    assert cached.slots.tolist() == list(range(6))


def test_two_processes_build_at_once(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 30)
    with start_child(table, tmp_path, pause=0.005) as child:
        assert child.stdout
        child.stdout.readline()  # It has begun, and has the lock.
        cached = build(table, tmp_path)
        _, errors = child.communicate()
    assert child.returncode == 0, errors
    assert cached.hits == 30
    assert len(cached.pixels) == 30
    np.testing.assert_array_equal(cached.images(np.arange(30)), prepared(table))


def test_waiting_for_another_build_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = folder_of(tmp_path / "images", 2)
    folder = tmp_path / "cache" / "squash-32-v1"
    folder.mkdir(parents=True)
    held = threading.Event()

    def hold() -> None:
        with filelock.FileLock(folder / "build.lock"):
            held.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    assert len(build(table, tmp_path).slots) == 2
    holder.join()
    assert "another process is building" in caplog.text


def test_a_full_disk_is_told_and_the_cache_stays_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = folder_of(tmp_path / "images", 12)
    monkeypatch.setattr(cache, "_BLOCK", 4)
    pixels = tmp_path / "cache" / "squash-32-v1" / "pixels.u8"
    with monkeypatch.context() as patch:
        patch.setattr(
            "shutil.disk_usage", lambda _: SimpleNamespace(free=8 * SIZE**2 - pixels.stat().st_size)
        )
        with pytest.raises(DataError, match=r"No space left on device.*HILUM_CACHE"):
            build(table, tmp_path)
    cached = build(table, tmp_path)
    assert cached.hits == 8
    np.testing.assert_array_equal(cached.images(np.arange(12)), prepared(table))


def test_a_write_that_fails_halfway_is_told_and_the_cache_stays_valid(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 60)
    # The kernel refuses to let a file grow beyond the limit, in the middle of a block.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({54 * SIZE**2 + 100},) * 2)\n"
    with start_child(table, tmp_path, before=limit) as child:
        _, errors = child.communicate()
    assert child.returncode == 1
    assert "hilum.errors.DataError: the cache" in errors
    assert "File too large" in errors
    cached = build(table, tmp_path)
    assert cached.hits == 52
    np.testing.assert_array_equal(cached.images(np.arange(60)), prepared(table))


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    table = folder_of(tmp_path / "images", 40)
    # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            build(table, tmp_path, on_progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    cached = build(table, tmp_path)
    assert cached.hits == 7
    np.testing.assert_array_equal(cached.images(np.arange(40)), prepared(table))


@pytest.mark.parametrize("damage", [b"", b"garbage" * 2000])
def test_a_damaged_index_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    table = folder_of(tmp_path / "images", 3)
    old = build(table, tmp_path)
    (tmp_path / "cache" / "squash-32-v1" / "index.sqlite").write_bytes(damage)
    folder_of(tmp_path / "images", 4)
    backwards = table_of(tmp_path / "images", ["3.png", "2.png", "1.png", "0.png"])
    new = build(backwards, tmp_path)
    assert new.hits == 0
    assert bool(damage) == ("damaged index" in caplog.text)
    np.testing.assert_array_equal(new.images(np.arange(4)), prepared(backwards))
    # Whoever trains on the old pixels goes on with them.
    np.testing.assert_array_equal(old.images(np.arange(3)), prepared(table))


def test_an_index_with_damaged_pages_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = folder_of(tmp_path / "images", 80)
    build(table, tmp_path)
    index = tmp_path / "cache" / "squash-32-v1" / "index.sqlite"
    content = bytearray(index.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    index.write_bytes(content)
    cached = build(table, tmp_path)
    assert "damaged index" in caplog.text
    np.testing.assert_array_equal(cached.images(np.arange(80)), prepared(table))


def test_an_index_of_another_format_is_made_anew_and_its_slots_are_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = folder_of(tmp_path / "images", 4)
    build(table.select(np.arange(4) > 0), tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "squash-32-v1" / "index.sqlite")) as index:
        index.execute("PRAGMA user_version = 7")
    cached = build(table, tmp_path)
    assert cached.hits == 0
    assert "its format is 7" in caplog.text
    np.testing.assert_array_equal(cached.images(np.arange(4)), prepared(table))


def test_slots_of_an_index_found_damaged_later_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = folder_of(tmp_path / "images", 4)
    build(table.select(np.arange(4) > 0), tmp_path)
    start_writing = cache._Store.start_writing

    def damaged(store: cache._Store) -> None:
        monkeypatch.setattr(cache._Store, "start_writing", start_writing)
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(cache._Store, "start_writing", damaged)
    cached = build(table, tmp_path)
    np.testing.assert_array_equal(cached.images(np.arange(4)), prepared(table))


def test_large_squares_are_committed_in_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = folder_of(tmp_path / "images", 7)
    monkeypatch.setattr(cache, "_BLOCK_BYTES", 3 * SIZE**2)
    sizes = []
    add = cache._Store.add
    monkeypatch.setattr(
        cache._Store, "add", lambda store, block, rows: sizes.append(len(block)) or add(store, block, rows)
    )
    build(table, tmp_path)
    assert sizes == [3, 3, 1]


def test_lost_pixels_are_prepared_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = folder_of(tmp_path / "images", 5)
    build(table, tmp_path)
    os.truncate(tmp_path / "cache" / "squash-32-v1" / "pixels.u8", 2 * SIZE**2 + 5)
    cached = build(table, tmp_path)
    assert cached.hits == 2
    assert "3 images are missing" in caplog.text
    np.testing.assert_array_equal(cached.images(np.arange(5)), prepared(table))


# The rest


def test_a_wrong_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="squash"):
        build(folder_of(tmp_path / "images", 1), tmp_path, fit="squish")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written to.*HILUM_CACHE"):
        build(folder_of(tmp_path / "images", 1), tmp_path)


def test_progress_counts_every_row_once(tmp_path: Path) -> None:
    build(folder_of(tmp_path / "images", 3), tmp_path)
    seen = []
    table = folder_of(tmp_path / "images", 6)
    for row in range(3):
        os.utime(table.location(row).path, ns=(0, 0))
    build(table.select(np.arange(6) < 3), tmp_path)
    build(table, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_an_empty_table_gives_an_empty_cache(tmp_path: Path) -> None:
    cached = build(table_of(tmp_path, ["a.png"]).select(np.array([False])), tmp_path)
    assert len(cached.slots) == len(cached.quarantine) == cached.hits == 0


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_CACHE", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_directory() == Path("/somewhere")
    monkeypatch.delenv("HILUM_CACHE")
    assert files.cache_directory() == Path("/xdg/hilum")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_directory() == Path.home() / ".cache" / "hilum"
