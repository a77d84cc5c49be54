"""Members of tar archives are read in place, in any order, without unpacking from the beginning each time."""

import gzip
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hilum.errors import ImageError
from hilum.images import Location, list_members, location, read_bytes, reading_order, tar

CONTENTS = {f"images/{number:03d}.png": np.random.default_rng(number).bytes(5_000) for number in range(40)}


def put_tar(path: Path, contents: dict[str, bytes], *, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive with many places at which unpacking can begin."""
    monkeypatch.setattr(tar, "_SPACING", 20_000)
    monkeypatch.setattr(tar, "_PACKED_BYTES", 2_000)
    monkeypatch.setattr(tar, "_UNPACKED_BYTES", 1_500)
    return put_tar(tmp_path / "a.tar.gz", CONTENTS)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w:"), ("a.tar.gz", "w:gz"), ("A.TGZ", "w:gz"), ("B.Tar.Gz", "w:gz")]
)
def test_every_member_is_read(tmp_path: Path, name: str, mode: str) -> None:
    path = put_tar(tmp_path / name, CONTENTS, mode=mode)
    assert list_members(path) == list(CONTENTS)
    for member, content in CONTENTS.items():
        place = Location(path, member)
        assert read_bytes(Location.parse(str(place))) == content


def test_any_order_and_any_thread_reads_the_same(packed: Path) -> None:
    names = [*CONTENTS] * 5
    np.random.default_rng(0).shuffle(names)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: read_bytes(Location(packed, name)), names))
    assert found == [CONTENTS[name] for name in names]


def test_what_lies_behind_is_not_unpacked_from_the_beginning(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(CONTENTS)
    read_bytes(Location(packed, names[-1]))
    unpacked: list[int] = []
    unpack = tar._Unpacked._unpack
    monkeypatch.setattr(
        tar._Unpacked, "_unpack", lambda self, limit: unpacked.append(1) or unpack(self, limit)
    )
    read_bytes(Location(packed, names[-10]))
    assert len(unpacked) < 40  # some 30,000 bytes of 150,000


def test_joined_gzip_files_and_zeros_at_the_end_are_read(tmp_path: Path) -> None:
    plain = put_tar(tmp_path / "a.tar", CONTENTS, mode="w:").read_bytes()
    path = tmp_path / "joined.tar.gz"
    path.write_bytes(gzip.compress(plain[:70_000]) + gzip.compress(plain[70_000:]) + bytes(10_000))
    assert all(read_bytes(Location(path, name)) == content for name, content in CONTENTS.items())


def test_the_index_is_kept_and_a_replaced_archive_is_noticed(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_members(packed)
    tar._members.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("the archive was listed again"))
        assert list_members(packed) == list(CONTENTS)
    put_tar(packed, {"b.png": b"new"})
    os.utime(packed, ns=(1, 1))
    assert list_members(packed) == ["b.png"]
    assert read_bytes(Location(packed, "b.png")) == b"new"


def test_what_is_no_plain_file_is_no_member(tmp_path: Path) -> None:
    path = put_tar(tmp_path / "a.tar.gz", {"a.png": b"a", "../up.png": b"up", "empty.png": b""})
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"member{kind!r}")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list_members(tmp_path / "links.tar.gz") == []
    for member, reason in {
        "../up.png": "absolute or has '..'",
        "/root.png": "absolute or has '..'",
        "b.png": "no such member in the archive",
        "empty.png": "empty file",
    }.items():
        with pytest.raises(ImageError, match=reason):
            read_bytes(Location(path, member))


def test_damaged_archives_are_refused(packed: Path, tmp_path: Path) -> None:
    short, text = tmp_path / "short.tar.gz", tmp_path / "text.tar"
    short.write_bytes(packed.read_bytes()[:100_000])
    text.write_text("not an archive")
    for path in (short, text):
        with pytest.raises(ImageError, match="no whole tar archive"):
            list_members(path)
        with pytest.raises(ImageError, match="the tar archive cannot be read"):
            read_bytes(Location(path, "images/000.png"))


def test_too_large_a_member_is_not_read(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "MAX_BYTES", 2**10)
    with pytest.raises(ImageError, match="MiB expected"):
        read_bytes(Location(packed, "images/000.png"))


def test_packed_members_are_read_from_front_to_back_and_others_as_they_stand(packed: Path) -> None:
    places = [
        Location(Path("b.png")),
        Location(packed, "images/007.png"),
        Location(Path("a.png")),
        Location(packed, "images/002.png"),
        Location(Path("gone.tar.gz"), "x.png"),
    ]
    assert reading_order(places) == [0, 3, 1, 2, 4]
