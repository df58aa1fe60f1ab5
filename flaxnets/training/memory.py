"""Memory: how much was needed; and keeping what a step gives back, so that the next need not ask the system again."""

import ctypes
import math
import sys

try:
    import resource
except ImportError:  # not on Windows
    resource = None

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


def peak_memory() -> float:
    """The most memory in use so far, in bytes: of the first device, or of this process on a CPU; NaN if unknown."""
    import jax  # not above: `keep_freed_memory` comes first of all

    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics.get("peak_bytes_in_use", math.nan)
    if resource is None:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
