"""Warnings of the decoders reach the caller of their own thread and nobody else."""

import logging
import threading
import warnings

import pytest
from pydicom.misc import warn_and_log

from hilum.images import decoder_warnings


def complain(text: str) -> None:
    warnings.warn_explicit(text, UserWarning, "Image.py", 1, module="PIL.Image")


def test_warnings_are_collected_once_each() -> None:
    with decoder_warnings.collected() as messages:
        complain("odd")
        complain("odd")
        complain("bad")
    assert messages == ["odd", "bad"]


def test_afterwards_all_is_as_before() -> None:
    before = (warnings.filters[:], warnings.showwarning, logging.getLogger("pydicom").filters[:])
    with decoder_warnings.collected(), decoder_warnings.collected():
        pass
    assert (warnings.filters[:], warnings.showwarning, logging.getLogger("pydicom").filters[:]) == before
    with pytest.raises(UserWarning, match="odd"):
        complain("odd")


def test_pydicom_neither_warns_nor_logs(caplog: pytest.LogCaptureFixture) -> None:
    with decoder_warnings.collected() as messages:
        warn_and_log("Invalid value 'Doe^John'", stacklevel=0)
    assert messages == ["Invalid value 'Doe^John'"]
    assert not caplog.records


def test_threads_do_not_mix() -> None:
    both_in, found = threading.Barrier(8), {}

    def collect(number: int) -> None:
        for _ in range(20):
            with decoder_warnings.collected() as messages:
                both_in.wait(10)
                complain(f"thread {number}")
                both_in.wait(10)
            found.setdefault(number, set()).update(messages)

    threads = [threading.Thread(target=collect, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {f"thread {number}"} for number in range(8)}


def test_other_threads_warnings_go_their_way() -> None:
    seen: list[str] = []

    def other() -> None:
        complain("from outside")

    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("always")
        with decoder_warnings.collected() as messages:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            seen += messages
    assert not seen
    assert [str(warning.message) for warning in outside] == ["from outside"]
