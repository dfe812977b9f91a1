"""The C library's allocator: keep what tensors give back, for the next ones.

glibc hands a large block back to the system as soon as it is freed, so every step pays again for the kernel's clearing and mapping
of the same gigabyte, page by page. A training step allocates the same sizes over and over: kept, they cost nothing.
"""

import ctypes
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3)."""
NEVER = -1
GROW_BY = 64 * 2**20
"""Bytes by which the heap grows at least."""


def keep_freed_memory() -> bool:
    """Have glibc never return memory to the system, and take large blocks from the heap too; False under another C library.

    The process then holds the most that it ever used at once (and what lies between). Results do not change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROW_BY))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
