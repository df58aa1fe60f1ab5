"""The dry run: memory beside what a compiled step takes, and the plot of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import BATCH, mesh_of, normed, prepared

from flaxnets.training import dry_run
from flaxnets.training import mesh as meshes
from flaxnets.training.programs import Program


def test_the_parts_of_a_step_take_what_the_plan_says():
    step, state, definition = prepared(normed, frozen=("stem",), keep_average=True)
    images = jax.ShapeDtypeStruct((32, 64, 64, 3), jnp.uint8)
    found = dry_run.memory(definition, state, images, frozen=("stem",))
    count = sum(leaf.size for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    trained = count - 3 * 3 * 3 * 8 - 4 * 8 - 2 * 8  # the stem's kernel and norm, the block's averages
    assert (found.params, found.averages, found.gradients, found.batch) == (
        4 * count,
        4 * count,
        4 * trained,
        32 * 64**2 * 3,
    )
    assert found.optimizer == 4 * (trained + 1)  # a momentum each, and a count
    halves = dry_run.memory(definition, state, images, frozen=("stem",), accumulate=2)
    assert halves.kept == pytest.approx(found.kept / 2, rel=0.05)

    mesh = mesh_of(1)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((32,), jnp.int32)}
    program = Program(meshes.data_parallel(step, mesh), donate_state=True, cache=None, code=(), settings={})
    program.compile(meshes.shapes(state, meshes.copied(mesh)), meshes.shapes(batch, meshes.split(mesh)))
    assert found.total == pytest.approx(program.memory_bytes(), rel=0.75)
    assert dry_run.describe_memory(found).startswith(
        f"{found.total / 2**20:.0f} MiB a device, estimated: parameters 0.0"
    )


def test_synchronised_batch_norm_can_be_planned():
    _, state, definition = prepared(normed, batch_norm="synchronised")
    images = jax.ShapeDtypeStruct(BATCH["image"].shape, jnp.uint8)
    assert dry_run.memory(definition, state, images).kept > 0


def test_the_plot_rises_and_falls_with_the_rate():
    rate = optax.join_schedules([optax.linear_schedule(0, 0.5, 30), optax.constant_schedule(0.125)], [30])
    lines = dry_run.plot(rate, 60, width=12, height=4)
    assert [line[:9].strip() for line in lines] == ["0.483", "", "", "0", "step"]
    heights = [sum(dry_run.BLOCKS.index(line[10 + x : 11 + x] or " ") for line in lines[:-1]) for x in range(12)]
    expected = [32 * float(rate(5 * x + 2.5)) / 0.4833 for x in range(12)]
    np.testing.assert_allclose(heights, expected, atol=1.5)
    assert lines[-1].split() == ["step", "0", "60"]


def test_a_plan_needs_no_arrays():
    _, state, definition = prepared(normed)
    shapes = jax.eval_shape(lambda: state)
    assert dry_run.memory(definition, shapes, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8)).total > 0
