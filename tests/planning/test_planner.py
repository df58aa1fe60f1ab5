"""What is said of a step that is too large: it is compiled, for simulated devices; only their memory is chosen."""

import dataclasses
import re

import pytest

from flaxnets.config import Data, Run
from flaxnets.planning import topologies
from flaxnets.planning.costs import Costs, StepCosts
from flaxnets.planning.data_facts import DataFacts
from flaxnets.planning.plan import Planner

RUN = Run(arch="tiny_net", data=Data(batch_size=96, image_size=16))
DEVICES = topologies.parse("cpu:2")


class SmallMemory(StepCosts):
    """Devices with so many bytes of memory."""

    def __init__(self, memory: int):
        super().__init__(DataFacts(960, 10, 3), None, lambda text: None)
        self._memory = memory

    def of(self, run, name, devices) -> Costs:
        costs = super().of(run, name, devices)
        return dataclasses.replace(costs, capacity=None if costs.total <= self._memory else self._memory)


@pytest.fixture(scope="module", autouse=True)
def _tiny(tiny_plugin):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tiny_plugin)
        yield


@pytest.fixture(scope="module")
def full(_tiny) -> Costs:
    costs = Planner(SmallMemory(2**30)).plan(RUN, DEVICES).costs
    assert costs
    return costs


def test_it_says_by_how_much_and_what_would_fit(full):
    memory = full.total * 2 // 3  # bfloat16 on a CPU and rematerialisation, which XLA undoes there, save less
    plan = Planner(SmallMemory(memory)).plan(RUN, DEVICES)
    assert plan.images_per_second is None
    needed, there, short = (f"{size / 2**20:.2f} MiB" for size in (full.total, memory, full.total - memory))
    start = f"tiny_net in float32 with 48 images a device does not fit on cpu:2: it needs {needed} of {there}, {short}"
    found = re.fullmatch(
        re.escape(start) + r" too much; use --data\.batch-size (\d+), which needs ([\d.]+) MiB\.", plan.problem or ""
    )
    assert found, plan.problem
    per_device = int(found[1]) // 2
    assert per_device in (8, 16, 32)  # a power of two
    assert float(found[2]) <= memory / 2**20


def test_where_nothing_fits_it_says_so(full):
    tried_already = RUN.model_copy(update={"dtype": "bfloat16", "rematerialise": True})
    plan = Planner(SmallMemory(full.params)).plan(tried_already, DEVICES)
    assert (plan.problem or "").endswith("too much; use a smaller network or smaller images.")
