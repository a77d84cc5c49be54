"""Files and archive members are read in place, within bounds, and every failure has its reason."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from hilum.errors import ImageError
from hilum.images import Location, location, read_bytes

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None, max_examples=50)
@given(folder=names, member=names)
def test_what_is_written_is_read_back(folder: str, member: str) -> None:
    for place in (Location(Path(folder, "a.zip"), f"b/{member}"), Location(Path(folder, "image.png"))):
        if ".zip::" not in folder.lower():
            assert Location.parse(str(place)) == place


def test_only_archives_have_members() -> None:
    assert Location.parse("study::1/a.png") == Location(Path("study::1/a.png"))
    assert Location.parse("x/A.ZIP::b::c.png") == Location(Path("x/A.ZIP"), "b::c.png")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("folder/b.png", b"content" * 1000)
        writer.writestr("folder/empty.png", b"")
        writer.writestr("../up.png", b"up")
        writer.writestr("/root.png", b"root")
        writer.writestr("folder/", b"")
    return path


def test_member_and_file_are_read(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"file")
    assert read_bytes(Location(tmp_path / "b.png")) == b"file"
    assert read_bytes(Location(archive, "folder/b.png")) == b"content" * 1000


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("folder/c.png", "no such member in the archive"),
        ("folder/empty.png", "empty file"),
        ("folder/", "a folder; a file expected"),
        ("../up.png", "absolute or has '..'"),
        ("folder/../folder/b.png", "absolute or has '..'"),
        ("folder\\..\\b.png", "absolute or has '..'"),
        ("/root.png", "absolute or has '..'"),
        ("\\root.png", "absolute or has '..'"),
        ("C:/root.png", "absolute or has '..'"),
    ],
)
def test_bad_members_are_refused(archive: Path, member: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_bytes(Location(archive, member))


def test_missing_folder_empty_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "missing.png": "^no such file$",
        "": "^a folder; a file expected$",
        "empty.png": "^empty file$",
        "pipe.png": "^not a regular file$",
        "empty.png/a.png": "^cannot be opened: Not a directory$",
        "nul\0.png": "^cannot be opened",
        "a" * 300: "^cannot be opened: File name too long$",
    }.items():
        with pytest.raises(ImageError, match=reason):
            read_bytes(Location(tmp_path / name))


def test_unreadable_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    missing, text, damaged = tmp_path / "no.zip", tmp_path / "text.zip", tmp_path / "damaged.zip"
    text.write_text("not an archive")
    content = bytearray(archive.read_bytes())
    content[60:64] = b"\xff\xff\xff\xff"
    damaged.write_bytes(content)
    for path, reason in {
        missing: "^no such file$",
        text: "BadZipFile",
        damaged: "zip archive cannot be read",
    }.items():
        with pytest.raises(ImageError, match=reason):
            read_bytes(Location(path, "folder/b.png"))


def test_too_large_is_refused_before_reading(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "MAX_BYTES", 2**10)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2**11))
    for place in (Location(large), Location(archive, "folder/b.png")):
        with pytest.raises(ImageError, match="MiB expected"):
            read_bytes(place)


@pytest.fixture
def count_opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    opened = []

    class Counted(zipfile.ZipFile):
        def __init__(self, *arguments: object) -> None:
            opened.append(arguments)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    return lambda: len(opened)


def test_an_archive_is_opened_once(archive: Path, count_opened: Callable[[], int]) -> None:
    for _ in range(20):
        read_bytes(Location(archive, "folder/b.png"))
    assert count_opened() == 1


def test_a_forked_process_opens_its_own(
    archive: Path, count_opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes(Location(archive, "folder/b.png"))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    read_bytes(Location(archive, "folder/b.png"))
    assert count_opened() == 2


def test_a_replaced_archive_is_noticed(archive: Path) -> None:
    read_bytes(Location(archive, "folder/b.png"))
    new = archive.with_name("new.zip")
    with zipfile.ZipFile(new, "w") as writer:
        writer.writestr("folder/b.png", b"new")
    new.replace(archive)
    assert read_bytes(Location(archive, "folder/b.png")) == b"new"


def test_few_archives_stay_open(tmp_path: Path) -> None:
    for number in range(40):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as writer:
            writer.writestr("a", str(number))
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    for number in range(40):
        assert read_bytes(Location(tmp_path / f"{number}.zip", "a")) == str(number).encode()
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert after - before <= 16
