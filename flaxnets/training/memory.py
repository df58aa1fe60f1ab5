"""Memory: how much was needed, what happens where it is too little, and keeping what a step gives back for the next."""

import contextlib
import math
import mmap
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from flaxnets.errors import OutOfMemoryError

try:
    import resource
except ImportError:  # not on Windows
    resource = None

# How glibc's allocator shall work, which it reads when a program starts (its manual, "Memory Allocation Tunables").
TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        # What is freed is kept, by all threads together,
        "mmap_max": 0,
        "trim_threshold": sys.maxsize,
        "arena_max": 1,
        # in one piece: no thread puts small ends aside, whose next use would leave too little room for the next step,
        "tcache_count": 0,
        "mxfast": 0,
        # and in pages of 2 MB, if the system lets a process ask for them.
        "hugetlb": 1,
    }.items()
)


def keep_freed_memory() -> None:
    """Start this process's program anew, with an allocator that keeps what is freed; to be called before all else.

    XLA's CPU programs allocate all that they need at each call. Above 32 MB the C library returns that to the system at
    once and gets it back page by page, each cleared by the kernel: a tenth to a third of a training step. In large
    pages, the processor finds its way faster: another twentieth to tenth of a step.

    Does nothing without glibc, where the variable GLIBC_TUNABLES says otherwise, or under a debugger, which would lose
    its breakpoints.
    """
    given = os.environ.get("GLIBC_TUNABLES")
    if given == TUNABLES:
        del os.environ["GLIBC_TUNABLES"]  # a matter of this process, not of those that it starts
    elif given is None and sys.executable and sys.gettrace() is None and platform.libc_ver()[0] == "glibc":
        os.environ["GLIBC_TUNABLES"] = TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def peak_memory() -> float:
    """The most memory in use so far, in bytes: of the first device, or of this process on a CPU; NaN if unknown."""
    import jax  # not above: `keep_freed_memory` comes before it

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
        there = min(os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE, granted()) / jax.local_device_count()
    else:
        return
    if needed > there:
        raise MemoryError(f"a step takes {needed / 1e9:,.1f} GB on each device, which has {there / 1e9:,.1f}")


def granted(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container, or a job of a cluster, leaves to this process; infinite where nothing limits it.

    Linux has a tree of groups for that, each with a limit of its own (its manual, cgroups(7)).

    Args:
      own: lists the process's groups: "0::PATH" of version 2, "N:memory:PATH" of version 1.
      mounted: where the trees are; a container may see only its own group there, as the root.
    """
    limits = [math.inf]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, kind, group = line.split(":", 2)
        if kind not in ("", "memory"):
            continue
        tree, file = (mounted / "memory", "memory.limit_in_bytes") if kind else (mounted, "memory.max")
        inner = tree / group.lstrip("/")
        for folder in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError):  # no such group to be seen; "max" is no limit
                limits.append(int((folder / file).read_text()))
    return min(limits)


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
