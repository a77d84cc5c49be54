"""The warnings of Pillow and pydicom while they decode a file, kept from the screen and handed to the caller.

They would otherwise reach the user's terminal and logs, pydicom's with values of the patient in them, and
under `python -W error` they would stop a file from being read. `warnings.catch_warnings` alone does not do:
it changes the whole process, and images are decoded in several threads at once.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO


class _Inbox(threading.local):
    messages: list[str] | None = None


_inbox = _Inbox()
_lock = threading.Lock()
_collecting = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Yield a list that fills with this thread's warnings of the decoding libraries.

    Other threads' warnings go where they would have gone.
    """
    global _collecting
    messages: list[str] = []
    with _lock:
        if _collecting == 0:
            _install()
        _collecting += 1
    previous, _inbox.messages = _inbox.messages, messages
    try:
        yield messages
    finally:
        _inbox.messages = previous
        with _lock:
            _collecting -= 1
            if _collecting == 0:
                _restore.close()


def _install() -> None:
    """Divert warnings and pydicom's log until `_restore` is closed."""
    _restore.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("always", module=r"(PIL|pydicom|numpy|hilum\.images)(\.|$)")
    show = warnings.showwarning

    def deliver(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if _inbox.messages is None:
            show(message, category, filename, lineno, file, line)
        elif str(message) not in _inbox.messages:
            _inbox.messages.append(str(message))

    warnings.showwarning = deliver
    for name in ("pydicom", "pydicom.pixels.decoders.base"):
        logger = logging.getLogger(name)
        logger.addFilter(_not_collecting)
        _restore.callback(logger.removeFilter, _not_collecting)


def _not_collecting(_record: logging.LogRecord) -> bool:
    return _inbox.messages is None
