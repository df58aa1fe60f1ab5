"""Freed memory is kept: a program that runs again asks the system for nothing, and finds its way by large pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from flaxnets.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: x + 1)
images = jnp.zeros(10**7)  # 40 MB; the allocator returns what is above 32
for _ in range(20):  # until the allocator has room for an aligned array
    step(images).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):  # far more than the few that may still widen what is kept
    step(images).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")
def test_results_of_a_step_are_made_in_memory_that_the_process_has():
    faults = {
        way: int(subprocess.run([sys.executable, "-c", PROGRAM, way], check=True, capture_output=True).stdout)
        for way in ("keep", "return")
    }
    assert faults["keep"] < faults["return"] / 10


LARGE_PAGES = """
from pathlib import Path
from flaxnets.training.memory import keep_freed_memory
keep_freed_memory()
images = b"x" * 2**26
print(Path("/proc/self/smaps_rollup").read_text())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of Linux")
def test_what_is_allocated_lies_in_large_pages_where_the_system_has_them():
    done = subprocess.run([sys.executable, "-c", LARGE_PAGES], check=True, capture_output=True, text=True)
    found = re.search(r"AnonHugePages: +(\d+) kB", done.stdout)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if found and setting.exists() and "[never]" not in setting.read_text():
        assert int(found[1]) > 2**26 / 1024 / 2  # the system may be short of them
    else:
        assert "Rss" in done.stdout  # nothing to gain, nothing lost
