"""Memory: how much was needed, what happens where it is too little, and keeping what a step gives back for the next."""

import contextlib
import ctypes
import math
import mmap
import os
import sys
from collections.abc import Iterator

from flaxnets.errors import OutOfMemoryError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Tell the C library's allocator to keep what is freed, in large pages; without effect but on Linux.

    XLA's CPU programs allocate all that they need at each call. Above 32 MB the allocator returns that to the system at
    once and gets it back page by page, each cleared by the kernel: a tenth to a third of a training step. The process
    holds on to its peak of memory instead. In pages of 2 MB, where the system lets a process ask for them, the
    processor finds its way faster: another twentieth to tenth of a step.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
            library.mallopt(parameter, value)
        _ask_for_large_pages(library)


def _ask_for_large_pages(library: ctypes.CDLL) -> None:
    """Of all that the process will allocate, up to half of the machine's memory: nothing is taken until it is used."""
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.free.argtypes = [ctypes.c_void_p]
    page = mmap.PAGESIZE
    size = os.sysconf("SC_PHYS_PAGES") * page // 2
    start = library.malloc(size)  # as freed memory is kept, this is where everything else will lie
    if start:  # not under a limit of a process's addresses
        first = -(-start // page) * page
        library.madvise(first, size - page, mmap.MADV_HUGEPAGE)
        library.free(start)


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


def require(needed: float) -> None:
    """Raise MemoryError where a device has fewer bytes; a system that lends them kills the process later."""
    import jax

    device = jax.local_devices()[0]
    if device.platform != "cpu":
        there = (device.memory_stats() or {}).get("bytes_limit", math.inf)
    elif hasattr(os, "sysconf"):  # not on Windows; simulated devices share the machine's
        there = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE / jax.local_device_count()
    else:
        return
    if needed > there:
        raise MemoryError(f"a step takes {needed / 1e9:,.1f} GB on each device, which has {there / 1e9:,.1f}")


def is_exhausted(error: BaseException) -> bool:
    """Whether JAX says that a device has no more memory; it has one type for all errors of devices."""
    return type(error).__name__ == "JaxRuntimeError" and str(error).startswith("RESOURCE_EXHAUSTED")


@contextlib.contextmanager
def running_out(fix: str) -> Iterator[None]:
    """Say in one sentence, which ends with `fix`, that memory did not suffice for what is done inside.

    Raises:
      OutOfMemoryError: in place of Python's MemoryError, and of JAX's error of that kind.
    """
    try:
        yield
    except Exception as error:
        if not is_exhausted(error) and not isinstance(error, MemoryError):
            raise
        reason = str(error).strip().split("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        raise OutOfMemoryError(f"There is too little memory ({reason or 'no more was to be had'}); {fix}.") from error
