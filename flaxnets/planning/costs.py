"""What one training step costs on one device: compiled for a topology, and read off the compiled program."""

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from flaxnets.config import Run, settings
from flaxnets.planning import topologies
from flaxnets.planning.data_facts import DataFacts
from flaxnets.planning.topologies import Topology
from flaxnets.training import computation, mesh, mixing, programs
from flaxnets.training.state import bytes_of


@dataclasses.dataclass(frozen=True)
class Collective:
    """Communication of one kind in a step: how many operations, and the bytes that each device gives to them."""

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """One step on one device, in bytes and operations.

    Attributes:
      devices: how many share the batch.
      params, optimizer, averages: of the state; `params` with the batch statistics, unpadded.
      batch: the device's images and labels.
      total: all memory that the compiled step takes, as the compiler says.
      capacity: memory of which the compiler says that it does not suffice; None where it does.
      operations: a multiply-add counted as two.
      bytes_accessed: read and written by all operations, as the compiler counts: also what stays on the chip.
      collectives: by name, such as `all-reduce`.
      steps: of the whole run.
      steps_per_epoch: likewise.
      compile_seconds: that compiling took.
    """

    devices: int
    params: int
    optimizer: int
    averages: int
    batch: int
    total: int
    capacity: int | None
    operations: float
    bytes_accessed: float
    collectives: dict[str, Collective]
    steps: int
    steps_per_epoch: float
    compile_seconds: float

    @property
    def activations(self) -> int:
        """What is left of the memory: feature maps kept for the gradient, gradients, padding, the program."""
        return max(0, self.total - self.params - self.optimizer - self.averages - self.batch)

    @property
    def fits(self) -> bool:
        """Whether the memory suffices."""
        return self.capacity is None


class StepCosts:
    """Finds the costs of training steps of one architecture; each is compiled once and kept.

    Args:
      facts: of the data.
      cache: folder of kept results; None keeps none.
      say: called with a line of text before anything is compiled.
    """

    def __init__(self, facts: DataFacts, cache: Path | None, say: Callable[[str], None]):
        self._facts = facts
        self._cache = cache
        self._say = say
        self._code: set[str] = set()

    def of(self, run: Run, topology: Topology, devices: list[Any]) -> Costs:
        """The costs of a run, whose image size is decided, where all devices of a topology share its batch.

        Raises:
          ConfigError: the batch cannot be split evenly over the devices, or the settings do not fit one another.
        """
        mesh.require_even_split(run.data.batch_size, len(devices))
        part = run.data.batch_size // len(devices)
        mesh.require_equal_parts(part, run.accumulate)
        channels = self._facts.channels
        computed = computation.computation_of(
            run,
            mixing.mixing_of(run.augmentation, part),
            **dataclasses.asdict(self._facts),
            mean=(0.5,) * channels,  # numbers that every step has, whatever they are
            std=(0.25,) * channels,
        )
        self._code = self._code or programs.loaded_files()  # compiling loads more, and would change the key
        there = Mesh(np.array(devices), (mesh.AXIS,), axis_types=(AxisType.Auto,))
        state = mesh.shapes(computed.state_shapes(), mesh.copied(there))
        batch = mesh.shapes(_batch_shapes(run, channels), mesh.split(there))
        constants = {**settings(run), **dataclasses.asdict(self._facts), "topology": topology.text}
        constants["compiler"] = topologies.compiler_version(topology)
        for without_effect in ("seed", "epochs", "steps", "train_count"):
            del constants[without_effect]
        key = programs.fingerprint({"costs": constants}, state, batch, self._code)
        file = self._cache and self._cache / f"{key}.costs.json"
        found = _load(file) if file else None
        if found is None:
            self._say(f"compiling {run.arch}, {part} images a device, for {topology.text} ({len(devices)} devices)")
            started = time.perf_counter()
            step = jax.jit(mesh.data_parallel(computed.train_step, there), donate_argnums=0)
            found = _read(step.lower(state, batch))
            found["compile_seconds"] = time.perf_counter() - started
            if file:
                programs.save(file, json.dumps(found).encode())
        collectives = {kind: Collective(**numbers) for kind, numbers in found.pop("collectives").items()}
        return Costs(
            devices=len(devices),
            params=bytes_of((state.params, state.batch_stats)),
            optimizer=bytes_of(state.optimizer),
            averages=bytes_of(state.average),
            batch=bytes_of(batch) // len(devices),
            collectives=collectives,
            steps=computed.total_steps,
            steps_per_epoch=computed.steps_per_epoch,
            **found,
        )


def collectives_in(program: str) -> dict[str, Collective]:
    """The collectives of a compiled program's text, by kind.

    >>> text = "  %all-reduce = (f32[8]{0:T(128)}, bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=1"
    >>> collectives_in(text)
    {'all-reduce': Collective(count=1, bytes=44)}
    """
    found: dict[str, Collective] = {}
    for line in program.splitlines():
        operation = _COLLECTIVE.search(line)
        if operation:
            before = found.get(operation["kind"], Collective(0, 0))
            bytes_here = sum(_bytes(*each) for each in _ARRAY.findall(operation["result"]))
            found[operation["kind"]] = Collective(before.count + 1, before.bytes + bytes_here)
    return found


_COLLECTIVE = re.compile(
    r" = (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\[([\d,]*)\]")
# Before and after memory is laid out, the compiler says it in different words.
_OUT_OF_MEMORY = re.compile(
    r"(?:\(|Used )(?P<total>[\d.]+[KMGT])(?:\) exceeds available HBM \(| of )(?P<capacity>[\d.]+[KMGT])(?:\)| hbm)"
)


def _bytes(kind: str, bits: str, shape: str) -> int:
    return math.prod(int(side) for side in shape.split(",") if side) * max(8, int(bits or 8)) // 8


def _read(lowered: Any) -> dict[str, Any]:
    """Compile, and read the program's costs; without them where the memory does not suffice."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        short = _OUT_OF_MEMORY.search(str(error))
        if short is None:
            raise
        total, capacity = (
            round(float(size[:-1]) * 2 ** (10 + 10 * "KMGT".index(size[-1])))
            for size in short.group("total", "capacity")
        )
        nothing = {"operations": 0.0, "bytes_accessed": 0.0, "collectives": {}}
        return {"total": total, "capacity": capacity, **nothing}
    counted, memory = compiled.cost_analysis(), compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "total": kept + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        "capacity": None,
        "operations": counted["flops"],
        "bytes_accessed": counted["bytes accessed"],
        "collectives": {kind: dataclasses.asdict(each) for kind, each in collectives_in(compiled.as_text()).items()},
    }


def _batch_shapes(run: Run, channels: int) -> dict[str, jax.ShapeDtypeStruct]:
    count, side = run.data.batch_size, run.data.image_size
    return {
        "image": jax.ShapeDtypeStruct((count, side, side, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "weight": jax.ShapeDtypeStruct((count,), np.float32),
    }


def _load(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):  # absent, or damaged: then it is made anew
        return None
