"""Freed memory is kept, so that a program that runs again asks the system for nothing; too little of it is told."""

import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from flaxnets.errors import OutOfMemoryError
from flaxnets.training.memory import granted, running_out

# Prints the page faults of 30 steps, and by how many arrays like `images` the process grew in them.
PROGRAM = """
from flaxnets.training.memory import keep_freed_memory
{keep}
import resource
import jax, jax.numpy as jnp
images = jnp.ones(10**7)  # 40 MB; the C library returns what is above 32
step = jax.jit(lambda x: x + 1)
def usage():
    return resource.getrusage(resource.RUSAGE_SELF)
for _ in range(5):
    step(images).block_until_ready()
before = usage()
for _ in range(30):
    step(images).block_until_ready()
print(usage().ru_minflt - before.ru_minflt, (usage().ru_maxrss - before.ru_maxrss) * 1024 // images.nbytes)
"""
linux = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")


def run_python(program: str, *arguments: str, **environment: str) -> str:
    """What a Python program prints, started in this process's environment and the variables given."""
    environment = os.environ | environment
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout


@linux
def test_a_step_lies_in_the_memory_of_the_step_before():
    kept, returned = (
        [int(number) for number in run_python(PROGRAM.format(keep=keep)).split()]
        for keep in ("keep_freed_memory()", "")
    )
    faults, growth = kept
    assert faults < returned[0] / 10
    assert growth <= 2  # a step may begin before the one before has given back its own


@linux
def test_large_pages_are_asked_for_where_the_system_has_them():
    program = """
from pathlib import Path
from flaxnets.training.memory import keep_freed_memory
keep_freed_memory()
images = b"x" * 2**26
print(Path("/proc/self/smaps_rollup").read_text())
"""
    said = run_python(program)
    found = re.search(r"AnonHugePages: +(\d+) kB", said)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if found and setting.exists() and "[never]" not in setting.read_text():
        assert int(found[1]) > 2**26 / 1024 / 2  # the system may be short of them
    else:
        assert "Rss" in said  # nothing to gain, nothing lost


START = """
import os, sys
from flaxnets.training.memory import keep_freed_memory
{before}
print("begun", flush=True)
keep_freed_memory()
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""


@linux
def test_a_process_starts_anew_once_with_its_arguments_and_tells_no_other():
    assert run_python(START.format(before=""), "a b", "--c") == "begun\nbegun\n['a b', '--c'] None\n"


@linux
def test_it_does_not_start_anew_under_a_debugger_nor_against_settings_of_the_user():
    debugger = START.format(before="sys.settrace(lambda *_: None)")
    assert run_python(debugger) == "begun\n[] None\n"
    given = "glibc.malloc.arena_max=2"
    assert run_python(START.format(before=""), GLIBC_TUNABLES=given) == f"begun\n[] {given}\n"


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
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"memory.max": "max\n"}, math.inf),
        ("0::/\n", {"memory.max": "2000\n"}, 2000),  # a container with a tree of its own
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "3000\n"}, 3000),
        ("0::/job/step\n", {"job/step/memory.max": "1000\n", "job/memory.max": "3000\n"}, 1000),
        ("9:cpu:/a\n4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "4000\n"}, 4000),
        ("4:memory:/seen/outside\n", {"memory/memory.limit_in_bytes": "5000\n"}, 5000),
        ("9:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "6000\n"}, math.inf),
    ],
)
def test_limits_of_containers_and_jobs_are_found(groups, limits, expected, tmp_path):
    own = tmp_path / "cgroup"
    own.write_text(groups)
    for name, limit in limits.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit)
    assert granted(own, tmp_path / "fs") == expected
    assert granted(tmp_path / "absent", tmp_path / "fs") == math.inf  # not on Linux


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
