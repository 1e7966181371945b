"""Pages of mapped files: resident once they were read, and released here where nobody needs them any more."""

from __future__ import annotations

import ctypes
import mmap
import sys

PAGE = mmap.PAGESIZE
DONTNEED = getattr(mmap, "MADV_DONTNEED", None)


def release_pages(address: int, size: int) -> None:
    """Let the system drop the pages inside [address, address + size), which must be an unchanged mapping of a file.

    They are read again when used. Nothing happens where the system is not Linux: elsewhere the pages stay resident
    until the system needs their memory.
    """
    start, stop = -(-address // PAGE) * PAGE, (address + size) // PAGE * PAGE
    if sys.platform == "linux" and DONTNEED is not None and stop > start:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), DONTNEED)
