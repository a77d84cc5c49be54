import errno
import os
import tempfile

import pytest

from hilum import files
from hilum.errors import UsageError


@pytest.mark.parametrize("name", ["file/report", "file/new/deep/report.csv"])
def test_a_place_below_a_file_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UsageError, match=r"--maps .* cannot be written in .*file: not a directory"):
        files.check_writable(tmp_path / name, option="--maps")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_named_with_its_reason(tmp_path, monkeypatch, number):
    def refuse(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    with pytest.raises(UsageError) as refused:
        files.check_writable(tmp_path / "new" / "report")

    assert f"cannot be written in {tmp_path}: {os.strerror(number).lower()}" in str(refused.value)


def test_the_check_leaves_nothing_behind(tmp_path):
    files.check_writable(tmp_path / "new" / "report")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "any"), os.strerror(errno.EROFS).lower()),
        (OSError(errno.ENOENT, "any"), ""),
        (ValueError("any"), ""),
    ],
)
def test_a_refusal_to_write_is_told_from_other_errors(error, words):
    assert files.refusal(error) == words
