"""What a process does with the memory of tensors that are gone."""

import ctypes
import logging
import sys

log = logging.getLogger(__name__)

# Numbers of glibc's parameters, from its malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next tensor, for the rest of the process.

    glibc maps each block above 32 MB anew and gives it back when it is freed, so that the kernel clears every page
    of every large activation, in every step. Kept, the process holds on to its peak instead.

    Returns:
        Whether the C library could be told; only glibc's knows how.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = all([mallopt(MMAP_THRESHOLD, 1 << 30), mallopt(TRIM_THRESHOLD, 2**31 - 1)])
    log.debug("freed memory is %s", "kept" if told else "given back: the C library would not be told")
    return told
