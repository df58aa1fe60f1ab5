"""The roofline, and the text of compiled programs that it is made from, beside sums by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.planning.chips import CHIPS, Chip
from flaxnets.planning.costs import Collective, Costs, collectives_in
from flaxnets.planning.estimate import estimate

CHIP = Chip(operations=1e12, memory=2**34, bandwidth=1e11, links=1e10, shapes=("1x1",))


def costs(devices=4, operations=0.0, bytes_accessed=0.0, reduced=0) -> Costs:
    sizes = {"params": 0, "optimizer": 0, "averages": 0, "batch": 0, "total": 0, "capacity": None}
    counts = {"steps": 10, "steps_per_epoch": 5.0, "compile_seconds": 0.0, "devices": devices}
    return Costs(
        operations=operations,
        bytes_accessed=bytes_accessed,
        collectives={"all-reduce": Collective(1, reduced)},
        **sizes,
        **counts,
    )


def test_what_takes_longest_is_the_limit():
    slow = estimate(costs(operations=2e9, bytes_accessed=1e8, reduced=1_000_000), CHIP, chips=4)
    assert (slow.operations, slow.memory) == pytest.approx((2e-3, 1e-3))
    assert slow.links == pytest.approx(2 * 3 / 4 * 1e6 / 1e10)  # all but the own quarter, there and back
    assert slow.step == pytest.approx(2e-3 + slow.links)
    assert slow.limit == "operations"
    assert estimate(costs(operations=1e9, bytes_accessed=1e9), CHIP, chips=4).limit == "memory"
    assert estimate(costs(reduced=1_000_000), CHIP, chips=4).limit == "links"
    assert estimate(costs(devices=1, reduced=1_000_000), CHIP, chips=1).links == 0


def test_two_devices_of_a_chip_share_its_peaks():
    one, two = (estimate(costs(devices, 1e9, 1e8, 1_000_000), CHIP, chips=4) for devices in (4, 8))
    assert (two.operations, two.memory) == pytest.approx((2 * one.operations, 2 * one.memory))
    assert two.links == one.links


def test_chips_are_in_the_units_that_are_said():
    for name, chip in CHIPS.items():
        assert 1e14 < chip.operations < 1e16, name
        assert 2**33 < chip.memory < 2**38, name
        assert 100 < chip.operations / chip.bandwidth < 1000, name  # operations a byte, of every chip of ten years
        assert chip.links < chip.bandwidth, name


SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=5)
SIZES = {"f32": 4, "bf16": 2, "s32": 4, "pred": 1, "u8": 1, "f64": 8}


@given(shapes=SHAPES, kind=st.sampled_from(sorted(SIZES)), start=st.sampled_from(["", "-start"]))
def test_bytes_of_collectives_are_counted(shapes, kind, start):
    arrays = [f"{kind}[{','.join(map(str, shape))}]{{0:T(8,128)S(1)}}" for shape in shapes]
    result = arrays[0] if len(arrays) == 1 else f"({', /*index=1*/'.join(arrays)})"
    line = f"  ROOT %all-reduce.7 = {result} all-reduce{start}(%x, %y), replica_groups={{{{0,1}}}}, to_apply=%add"
    others = f"  %z = f32[7]{{0}} get-tuple-element(%all-reduce.7), index=0\n{line}\n  %g = u8[3] all-gather(%q)"
    expected = 0
    for shape in shapes:
        count = 1
        for side in shape:
            count *= side
        expected += count * SIZES[kind]
    assert collectives_in(others) == {"all-reduce": Collective(1, expected), "all-gather": Collective(1, 3)}
