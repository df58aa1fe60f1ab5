"""Freed memory is kept, so that a program that runs again asks the system for nothing; too little of it is told."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from flaxnets.errors import OutOfMemoryError
from flaxnets.training.memory import running_out

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


def test_a_batch_that_memory_does_not_hold_is_refused_before_the_run_begins(flaxnets):
    network = ["--arch", "resnet18", "--options", "stem", "small"]
    # The first feature maps are 64 channels of 512x512.
    size = ["--data.batch-size", 1024, "--data.image-size", 512, "--steps", 1, "--schedule.warmup", "0 steps"]
    done = flaxnets("train", *network, *size, code=2)
    assert re.fullmatch(
        r"Error: There is too little memory \(a step takes [\d,]{4,}\.\d GB on each device, which has [\d,]+\.\d\); "
        r"lower --data.batch-size, or raise --accumulate, or give --rematerialise.\n",
        done.stderr,
    )
    assert not list((flaxnets.folder / "runs").iterdir())


@pytest.mark.parametrize(
    "take", [lambda: jnp.zeros(10**14).block_until_ready(), lambda: bytes(10**15)], ids=["jax", "python"]
)
def test_memory_that_runs_out_is_told_in_one_sentence(take):
    told = r"^There is too little memory \(.+[^.]\); close the windows.$"
    with pytest.raises(OutOfMemoryError, match=told), running_out("close the windows"):
        take()


def test_other_errors_of_devices_are_none_of_memory():
    def fails(x):
        raise RuntimeError("a mistake of the program")

    with pytest.raises(jax.errors.JaxRuntimeError, match="a mistake of the program"), running_out("close the windows"):
        jax.pure_callback(fails, jax.ShapeDtypeStruct((), jnp.float32), jnp.float32(0)).block_until_ready()
