"""Commands in processes of their own, which tests watch, signal and kill.

A server process imports what training imports, once, and each command is forked from it: half of a short run's time.
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

MODULES = ["flaxnets.run", "jax", "grain", "orbax.checkpoint", "optax", "flax.nnx", "cv2", "sklearn.datasets"]
MODULES += ["flaxnets.models", "flaxnets.data.images", "flaxnets.training.loop", "flaxnets_resnet", "flaxnets_tiny"]
MODULES += ["flaxnets_mobilenet.v2", "tensorflow_datasets"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(MODULES)
PATIENCE = 300  # seconds; only a test that fails waits so long


def xla_flags(devices: int) -> str:
    """Simulated devices; and the quickest compilation, because tests compile far longer than they compute."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    if tuple(map(int, importlib.metadata.version("jax").split(".")[:2])) < (0, 11):  # which has two ways to compile
        flags += " --xla_cpu_use_fusion_emitters=false"
    return flags


def _main(arguments: list[str], folder: Path, site: Path, environment: dict[str, str], output: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(site))
    os.environ.update(environment)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY), stream)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    from flaxnets.cli import main

    sys.exit(main(arguments))


class Started:
    """`flaxnets ARGUMENTS`, started in a folder; its output comes through pipes. `site` is where plugins are."""

    def __init__(self, folder: Path, site: Path, arguments: list[str], **environment: str):
        self._output = Path(tempfile.mkdtemp(dir=folder.parent)) / "output"
        self._pipes = {}
        for name in ("stdout", "stderr"):  # a limit on the size of files does not concern them
            os.mkfifo(f"{self._output}.{name}")
            self._pipes[name] = os.open(f"{self._output}.{name}", os.O_RDONLY | os.O_NONBLOCK)
        self._text = dict.fromkeys(self._pipes, "")
        values = {"XLA_FLAGS": xla_flags(1), "COLUMNS": "200", **environment}
        self._process = CONTEXT.Process(target=_main, args=(arguments, folder, site, values, str(self._output)))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        return self._read("stdout")

    @property
    def stderr(self) -> str:
        return self._read("stderr")

    def _read(self, name: str) -> str:
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._pipes[name], 65536):
                self._text[name] += more.decode()
        return self._text[name]

    def wait_for(self, condition) -> None:
        """Until `condition()` holds, or a pattern appears in the output; fails if the process ends before."""
        if isinstance(condition, str):
            pattern = condition
            condition = lambda: re.search(pattern, self.stdout + self.stderr)  # noqa: E731
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self._process.is_alive() or condition(), self.stdout + self.stderr
            assert time.monotonic() < end, self.stdout + self.stderr
            time.sleep(0.002)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.join(PATIENCE)

    def end(self, *codes: int) -> "Started":
        """Wait for the end, and see that it is with one of `codes`, or with 0."""
        end = time.monotonic() + PATIENCE
        while self._process.is_alive() and time.monotonic() < end:
            self._read("stdout"), self._read("stderr")  # a full pipe would hold it up
            self._process.join(0.05)
        assert self._process.exitcode in (codes or (0,)), f"{self._process.exitcode}\n{self.stdout}{self.stderr}"
        return self


def saved_steps(text: str) -> list[int]:
    """The steps that a run said were saved."""
    return [int(step) for step in re.findall(r"^step (\d+) is saved$", text, re.MULTILINE)]
