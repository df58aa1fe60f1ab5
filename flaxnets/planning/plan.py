"""A run on a topology: what it costs and how fast it could be, or why it cannot be; and what would be better."""

import dataclasses
from typing import Any

from flaxnets.config import Run
from flaxnets.errors import ConfigError
from flaxnets.planning import topologies
from flaxnets.planning.costs import Costs, StepCosts
from flaxnets.planning.estimate import Estimate, estimate
from flaxnets.planning.topologies import Topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on a topology.

    Attributes:
      run, topology: what was planned, and for what.
      devices: number of JAX devices there.
      costs: of a step on a device; None where the batch cannot be split.
      problem: a sentence that says why the run cannot be, and what to do; None if it can.
    """

    run: Run
    topology: Topology
    devices: int
    costs: Costs | None
    problem: str | None = None

    @property
    def batch_per_device(self) -> float:
        """Images a step on one device."""
        return self.run.data.batch_size / self.devices

    @property
    def memory(self) -> int | None:
        """Memory of a device in bytes, as published; None for a simulated one."""
        return self.topology.chip and self.topology.chip.memory * self.topology.chips // self.devices

    @property
    def estimate(self) -> Estimate | None:
        """Seconds of a step; None where nothing is published of the device, or the run cannot be."""
        if self.problem or not self.costs or not self.topology.chip:
            return None
        return estimate(self.costs, self.topology.chip, self.topology.chips)

    @property
    def images_per_second(self) -> float | None:
        """Of all devices together."""
        return self.estimate and self.run.data.batch_size / self.estimate.step

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, sizes in bytes and per device."""
        found, costs, seconds = self.estimate, self.costs, None
        if found:
            seconds = {**dataclasses.asdict(found), "step": found.step}
        result: dict[str, Any] = {
            "topology": self.topology.text,
            "chips": self.topology.chips,
            "devices": self.devices,
            "arch": self.run.arch,
            "dtype": self.run.dtype,
            "rematerialise": self.run.rematerialise,
            "batch_size": self.run.data.batch_size,
            "batch_per_device": self.batch_per_device,
            "problem": self.problem,
            "device_memory": self.memory,
            "seconds": seconds,
            "limit": found and found.limit,
            "images_per_second": self.images_per_second,
        }
        if costs:
            result |= {**dataclasses.asdict(costs), "activations": costs.activations}
            result["epoch_seconds"] = found and found.step * costs.steps_per_epoch
            result["run_seconds"] = found and found.step * costs.steps
        return result


class Planner:
    """Makes plans of one architecture on one data set."""

    def __init__(self, step_costs: StepCosts):
        self._step_costs = step_costs

    def plan(self, run: Run, topology: Topology) -> Plan:
        """The plan of a run; where its memory does not suffice, the problem says what would.

        Raises:
          ConfigError: the topology cannot be compiled for.
        """
        found = self._plan(run, topology)
        if found.costs is None or found.costs.fits:
            return found
        return dataclasses.replace(found, problem=self._too_large(found, found.costs))

    def suggestions(self, plan: Plan) -> dict[str, Plan]:
        """Plans of the same run with one change each, by the option that makes it."""
        batch = plan.run.data.batch_size
        changes = [{"dtype": "bfloat16"}, {"rematerialise": True}, {"batch_size": 2 * batch}]
        if plan.batch_per_device % 2 == 0:
            changes.append({"batch_size": batch // 2})
        tried = {}
        for change in changes:
            run = _changed(plan.run, change)
            if run != plan.run:
                tried[_option(change)] = self._plan(run, plan.topology)
        return tried

    def _plan(self, run: Run, topology: Topology) -> Plan:
        devices = topologies.devices_of(topology)
        try:
            costs = self._step_costs.of(run, topology, devices)
        except ConfigError as error:
            return Plan(run, topology, len(devices), None, str(error))
        if costs.fits:
            return Plan(run, topology, len(devices), costs)
        return Plan(run, topology, len(devices), costs, f"does not fit, it needs {size_text(costs.total)}")

    def _too_large(self, plan: Plan, costs: Costs) -> str:
        """By how much a step is too large, and a change with which it fits, found by compiling."""
        capacity = costs.capacity or 0
        start = (
            f"{plan.run.arch} in {plan.run.dtype} with {plan.batch_per_device:.0f} images a device does not fit on "
            f"{plan.topology.text}: it needs {size_text(costs.total)} of {size_text(capacity)}, "
            f"{size_text(costs.total - capacity)} too much; "
        )
        fixed = costs.params + costs.optimizer + costs.averages
        part = int(plan.batch_per_device * max(0, capacity - fixed) / (costs.total - fixed))
        changes: list[dict[str, Any]] = [{"dtype": "bfloat16"}, {"rematerialise": True}]
        while part := _power_of_two(part):
            changes.append({"batch_size": part * plan.devices})
            part -= 1
        for change in changes:
            run = _changed(plan.run, change)
            smaller = self._plan(run, plan.topology) if run != plan.run else None
            if smaller and smaller.costs and smaller.costs.fits:
                return start + f"use {_option(change)}, which needs {size_text(smaller.costs.total)}."
        return start + "use a smaller network or smaller images."


def size_text(size: float) -> str:
    """A size in bytes in words, such as `3.25 GiB` or `0.51 MiB`."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above a number; 0 for 0."""
    return 1 << (number.bit_length() - 1) if number > 0 else 0


_OPTIONS = {"batch_size": "data.batch-size", "dtype": "dtype"}


def _changed(run: Run, change: dict[str, Any]) -> Run:
    if "batch_size" in change:
        return run.model_copy(update={"data": run.data.model_copy(update=change)})
    return run.model_copy(update=change)


def _option(change: dict[str, Any]) -> str:
    ((name, value),) = change.items()
    return "--rematerialise" if name == "rematerialise" else f"--{_OPTIONS[name]} {value}"
