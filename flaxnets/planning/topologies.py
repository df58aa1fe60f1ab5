"""Devices that are not there: TPU slices that libtpu can compile for, and simulated CPUs."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
from typing import Any

from flaxnets.errors import ConfigError, did_you_mean
from flaxnets.planning.chips import CHIPS, Chip

# What libtpu would otherwise ask the machine for, in vain and not in silence; and other processes may load it too.
ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices that JAX need not have seen.

    Attributes:
      text: as the user wrote it, such as `v5e:4x4` or `cpu:8`.
      kind: `v5e` or `cpu`.
      chips: how many chips there are; CPUs have one device each.
    """

    text: str
    kind: str
    chips: int

    @property
    def chip(self) -> Chip | None:
        """What is published of a chip; None for a simulated CPU."""
        return CHIPS.get(self.kind)


def parse(text: str) -> Topology:
    """The topology of a name. Raises ConfigError, listing those that are known."""
    kind, _, shape = text.partition(":")
    sides = shape.split("x")
    known = all(side.isdecimal() and int(side) > 0 for side in sides)
    if kind == "cpu" and known and len(sides) == 1:
        return Topology(text, kind, int(shape))
    if kind in CHIPS and known and len(sides) == len(CHIPS[kind].shapes[0].split("x")):
        return Topology(text, kind, math.prod(map(int, sides)))
    raise ConfigError(f"There is no topology {text!r}.{did_you_mean(kind, CHIPS)} {_choices()}")


def simulate(devices: int) -> None:
    """Let JAX, which must not have started, see so many CPUs and nothing else, and libtpu no machine to explore."""
    os.environ.update(ALONE)
    os.environ["JAX_PLATFORMS"] = "cpu"
    count = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}"


def devices_of(topology: Topology) -> list[Any]:
    """The devices of a topology, to compile for: v3 and TPU7x have two a chip, the others one.

    Raises:
      ConfigError: libtpu is absent, or knows no such shape.
    """
    import jax
    from jax.experimental import topologies

    if topology.kind == "cpu":
        return jax.devices("cpu")[: topology.chips]
    if not importlib.util.find_spec("libtpu"):
        raise ConfigError(
            f"Planning for {topology.text} needs libtpu, which is absent; run: pip install 'flaxnets[tpu]' (no TPU is "
            f"needed), or plan without it by --topology cpu:{topology.chips}."
        )
    one_chip: Any = {"chips_per_host_bounds": (1, 1, 1)} if topology.chips == 1 else {}  # libtpu 0.0.42 assumes 2x2x1
    try:
        return list(topologies.get_topology_desc(topology.text, platform="tpu", **one_chip).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2].rstrip(".")
        raise ConfigError(f"libtpu cannot compile for {topology.text} ({reason}). {_choices(topology.kind)}") from error


def compiler_version(topology: Topology) -> str:
    """The version of what compiles for a topology, as far as it is not JAX itself."""
    return "jaxlib" if topology.kind == "cpu" else importlib.metadata.version("libtpu")


def _choices(kind: str | None = None) -> str:
    shapes = [f"{name}:{', '.join(chip.shapes)}" for name, chip in CHIPS.items() if kind in (None, name)]
    return f"Choose by --topology one of {'; '.join([*shapes, 'cpu:N'])}."
