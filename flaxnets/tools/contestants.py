"""What `flaxnets bench` times: a training step or an inference, of flaxnets or of torchvision."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from flaxnets import models
from flaxnets.errors import ArchitectureError, ConfigError
from flaxnets.fold import fold_batch_norm
from flaxnets.recipe import Optimizer
from flaxnets.training import mesh, optimizer, programs, state, step

CLASSES = 1000
LABEL_SMOOTHING = 0.1


class Flaxnets:
    """A compiled step on random images that lie on the devices; inference as `flaxnets export` writes it.

    Args:
      arch, options, image_size, batch: the network and its input.
      mode: `train` for the step of `flaxnets train`, `inference` for logits with batch norm folded and parameters that
        are constants, so that what depends on them alone is computed by the compiler.
      plain: use XLA's own form of every convolution.

    Attributes:
      name: for the table.
      num_params: of the network.
      compile_seconds: tracing and compiling, nothing cached.
      memory_bytes: arguments, constants, results and temporary memory of the compiled step.
    """

    def __init__(self, arch: str, options: dict[str, Any], image_size: int, batch: int, mode: str, *, plain: bool):
        self.name = "flaxnets, plain convolutions" if plain else "flaxnets"
        devices = mesh.data_mesh(batch)
        model = models.create(arch, CLASSES, **options)
        self.num_params = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        make = _training if mode == "train" else _inference
        start, constants, function, images = make(model, image_size, batch)
        self._start = jax.device_put(start, mesh.copied(devices))
        self._batch = jax.device_put(images, mesh.split(devices))
        self._program = _program(mesh.data_parallel(function, devices), mode)
        with _lowering("plain" if plain else os.environ.get("FLAXNETS_CONV", "fast")):
            began = time.perf_counter()
            self._program.compile(self._start, self._batch)
            self.compile_seconds = time.perf_counter() - began
        self._start = jax.tree.leaves(self._start)  # as the loop of `flaxnets train` does
        self.memory_bytes = self._program.memory_bytes() + sum(array.nbytes for array in jax.tree.leaves(constants))
        self._mode = mode

    def run(self, steps: int, program: programs.Program | None = None) -> float:
        """Seconds that so many steps take."""
        program = program or self._program
        began = time.perf_counter()
        result = None
        for _ in range(steps):
            result = program(self._start, self._batch)
            if self._mode == "train":
                self._start, result = result
        jax.block_until_ready(result)
        return time.perf_counter() - began

    def overhead_seconds(self) -> float:
        """What a step costs that computes nothing, with the same arguments and results: median of 100."""

        def empty(start: Any, batch: Any) -> Any:
            result = jax.tree.map(lambda array: array.ravel()[0], batch)
            return (start, result) if self._mode == "train" else result

        program = _program(jax.jit(empty), self._mode)
        self.run(1, program)
        return float(np.median([self.run(1, program) for _ in range(100)]))

    def close(self) -> None:
        """Nothing to end."""


class Torchvision:
    """The same network, batch and optimiser in PyTorch: eager or compiled, channels last, as many threads as cores.

    Runs in a process of its own, because its threads and JAX's would get in each other's way.
    Arguments and attributes: as of `Flaxnets`.

    Raises:
      ConfigError: torch or torchvision is not installed.
      ArchitectureError: torchvision has no such network.
    """

    def __init__(self, arch: str, image_size: int, batch: int, mode: str, *, compiled: bool):
        self.name = "torchvision, compiled" if compiled else "torchvision"
        settings = {"arch": arch, "image_size": image_size, "batch": batch, "mode": mode, "compiled": compiled}
        settings |= {"classes": CLASSES, "label_smoothing": LABEL_SMOOTHING}
        settings |= {"optimizer": Optimizer().model_dump(), "threads": len(os.sched_getaffinity(0))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flaxnets.tools.torchvision_step", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = self._ask()
        if "num_params" not in answer:
            self.close()
        if answer.get("missing"):
            raise ConfigError(
                f"{answer['missing']} is not installed, so there is nothing to compare with; install torch and "
                "torchvision beside flaxnets, or leave out --compare."
            )
        if answer.get("unknown"):
            raise ArchitectureError(f"torchvision has no {arch!r}; compare another, or leave out --compare.")
        self.num_params = answer["num_params"]
        self.compile_seconds = answer["compile_seconds"]
        self.memory_bytes = None

    def run(self, steps: int) -> float:
        """Seconds that so many steps take."""
        assert self._process.stdin
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._ask()["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"torchvision's process ended with code {self._process.wait()}")
        return json.loads(line)


def matrix_product_peak() -> float:
    """Multiply-adds a second of a 2048 x 2048 float32 matrix product: the best of ten."""
    size = 2048
    matrix = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return size**3 / min(seconds)


def _program(step: Callable, mode: str) -> programs.Program:
    return programs.Program(step, donate_state=mode == "train", cache=None, code=(), settings={})


def _training(model: Any, image_size: int, batch: int) -> tuple[Any, Any, Callable, Any]:
    definition, params, batch_stats = state.split_model(model)
    rate = optax.constant_schedule(0.01)
    update = optimizer.make_optimizer(Optimizer(), rate)
    start = state.initial_state(params, batch_stats, update)
    function = step.make_train_step(
        definition, update, rate=rate, mean=(0.5,) * 3, std=(0.25,) * 3, label_smoothing=LABEL_SMOOTHING
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, image_size, image_size, 3), np.uint8)
    return start, (), function, {"image": images, "label": random.integers(0, CLASSES, batch, np.int32)}


def _inference(model: Any, image_size: int, batch: int) -> tuple[Any, Any, Callable, Any]:
    graph, arrays = nnx.split(fold_batch_norm(model))
    images = np.random.default_rng(0).standard_normal((batch, image_size, image_size, 3), np.float32)
    return (), arrays, lambda nothing, images: nnx.merge(graph, arrays)(images), images


@contextlib.contextmanager
def _lowering(name: str) -> Iterator[None]:
    before = os.environ.get("FLAXNETS_CONV")
    os.environ["FLAXNETS_CONV"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["FLAXNETS_CONV"]
        else:
            os.environ["FLAXNETS_CONV"] = before
