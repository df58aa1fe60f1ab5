"""Keeps the memory that a step gives back, so that the next step need not ask the system for it again."""

import ctypes
import sys

# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Tell the C library's allocator to keep what is freed; of use on Linux only, without effect elsewhere.

    XLA's CPU programs allocate all that they need at each call. Above 32 MB the allocator returns that to the system at
    once and gets it back page by page, each cleared by the kernel: a tenth to a third of a training step. The process
    holds on to its peak of memory instead.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
            library.mallopt(parameter, value)
