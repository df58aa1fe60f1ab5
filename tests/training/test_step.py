"""The step of one device, run on eight: equal to pmap, and to one device where batch norm allows it."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flaxnets_tiny import tiny_net
from small_networks import BATCH, STATISTICS, assert_close, mesh_of, normed, prepared, run, with_dropout, without_norm

from flaxnets.errors import ArchitectureError, ConfigError
from flaxnets.training import mesh as meshes
from flaxnets.training.losses import cross_entropy
from flaxnets.training.state import split_model
from flaxnets.training.step import make_eval_step, normalise


@pytest.mark.parametrize("build", [normed, with_dropout])
def test_eight_devices_equal_pmap_of_the_same_step_to_the_last_bit(build):
    step, state, _ = prepared(build)
    mapped = jax.pmap(step, axis_name="data", in_axes=(None, 0), out_axes=None)
    stacked = {name: array.reshape(8, 4, *array.shape[1:]) for name, array in BATCH.items()}
    expected = mapped(*(mapped(state, stacked)[0], stacked))
    for x, y in zip(jax.tree.leaves(run(step, state, 8)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_gradients_of_eight_devices_equal_those_of_one():
    step, state, _ = prepared(without_norm)
    (eight, metrics), (one, metrics_of_one) = run(step, state, 8, 1), run(step, state, 1, 1)
    assert_close(eight.params, one.params, 1e-6)
    assert_close(metrics, metrics_of_one, 1e-5)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_synchronised_batch_norm_on_eight_devices_equals_one_device():
    step, state, _ = prepared(normed, batch_norm="synchronised")
    assert_close(run(step, state, 8), run(step, state, 1), 2e-5)


def test_a_step_communicates_once_and_no_more_than_it_must():
    """One fused all-reduce: gradients and running averages, and the three sums of the metrics."""
    step, state, _ = prepared(normed)
    mesh = mesh_of(8)
    arguments = meshes.shapes(state, meshes.copied(mesh)), meshes.shapes(BATCH, meshes.split(mesh))
    program = meshes.data_parallel(step, mesh).lower(*arguments).compile().as_text()
    results = re.findall(r"= (\S.*?) (?:all-reduce|reduce-scatter|all-gather|collective-permute)(?:-start)?\(", program)
    assert len(results) == 1
    shapes = re.findall(r"f32\[([\d,]*)\]", results[0])
    numbers = sum(math.prod(int(size) for size in shape.split(",") if size) for shape in shapes)
    assert numbers == sum(array.size for array in jax.tree.leaves((state.params, state.batch_stats))) + 3


def test_the_mean_over_devices_keeps_every_array_in_its_place():
    shapes = {"kernel": (3, 4), "scale": (5,), "count": (), "stages": {0: (2,), 1: (2, 1, 3)}, "empty": (0,)}
    shapes = jax.tree.map(lambda shape: jnp.zeros((8, *shape)), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    random = np.random.default_rng(0)
    tree = jax.tree.map(lambda array: random.standard_normal(array.shape).astype(np.float32), shapes)
    tree["number"] = np.arange(16.0).reshape(8, 2).astype(jnp.bfloat16)
    found = jax.vmap(meshes.mean_over_devices, axis_name=meshes.AXIS, out_axes=None)(tree)
    for (path, mean), array in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(tree), strict=True):
        assert mean.dtype == array.dtype, path
        np.testing.assert_allclose(mean, np.asarray(array, np.float32).mean(0), rtol=1e-6)


def test_batch_norm_is_per_device_unless_synchronised():
    step, state, _ = prepared(normed)
    eight, one = run(step, state, 8)[0], run(step, state, 1)[0]
    assert np.abs(eight.params["classifier"]["kernel"] - one.params["classifier"]["kernel"]).max() > 1e-4
    # The running mean is linear in the batch, so it is the same either way.
    np.testing.assert_allclose(
        run(step, state, 8, 1)[0].batch_stats["stem"]["norm"]["mean"],
        run(step, state, 1, 1)[0].batch_stats["stem"]["norm"]["mean"],
        atol=1e-6,
    )


def test_randomness_depends_on_seed_step_and_device():
    definition, params, batch_stats = split_model(with_dropout(nnx.Rngs(0)))
    image = jnp.asarray(np.random.default_rng(0).standard_normal((8, 8, 8, 3)), jnp.float32)
    key = jax.random.key(0)
    same, again = (definition.train(params, batch_stats, image, key)[0] for _ in range(2))
    other, _ = definition.train(params, batch_stats, image, jax.random.fold_in(key, 1))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()
    step, state, _ = prepared(with_dropout)
    repeated = {name: np.concatenate([array[:4]] * 8) for name, array in BATCH.items()}
    parallel = meshes.data_parallel(step, mesh_of(8))
    losses = [float(parallel(state.replace(step=jnp.int32(n)), repeated)[1]["loss"]) for n in (0, 0, 1)]
    alone = meshes.data_parallel(step, mesh_of(1))(state, {n: a[:4] for n, a in repeated.items()})[1]["loss"]
    other = float(parallel(state.replace(seed=jnp.uint32(4)), repeated)[1]["loss"])
    assert losses[0] == losses[1] != losses[2]
    assert other not in losses
    assert losses[0] != pytest.approx(
        8 * float(alone), rel=1e-5
    )  # eight devices with one key would drop the same units


def test_training_lowers_the_loss_and_moves_the_running_averages():
    step, state, _ = prepared(normed)
    first, last = run(step, state, 8, 1), run(step, state, 8, 30)
    assert last[1]["loss"] < 0.9 * first[1]["loss"]
    assert int(last[0].step) == 30
    assert (last[0].batch_stats["stem"]["norm"]["var"] != 1).all()


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
    definition, params, batch_stats = split_model(tiny_net.build(num_classes=5, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    image = jnp.zeros((2, 8, 8, 3))
    logits, stats = definition.train(params, batch_stats, image, jax.random.key(0))
    assert logits.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves((params, stats))} == {jnp.dtype("float32")}
    assert "bf16" in jax.jit(definition.infer).lower(params, batch_stats, image).as_text()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_evaluation_weighs_examples(accumulate):
    _, state, definition = prepared(normed)
    step = meshes.data_parallel(make_eval_step(definition, **STATISTICS, accumulate=accumulate), mesh_of(8))
    weight = np.arange(32, dtype=np.float32) % 2
    metrics = step(state, {**BATCH, "weight": weight})
    logits = definition.infer(state.params, state.batch_stats, normalise(jnp.asarray(BATCH["image"]), **STATISTICS))
    assert metrics["count"] == 16
    assert metrics["correct"] == ((logits.argmax(-1) == BATCH["label"]) * weight).sum()
    np.testing.assert_allclose(
        metrics["loss"], weight @ cross_entropy(logits, jax.nn.one_hot(BATCH["label"], logits.shape[-1])), rtol=1e-5
    )


def test_normalised_images_have_mean_0_and_deviation_1():
    image = np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), np.uint8)
    scaled = image / 255
    normal = normalise(jnp.asarray(image), tuple(scaled.mean((0, 1, 2))), tuple(scaled.std((0, 1, 2))))
    np.testing.assert_allclose(normal.mean((0, 1, 2)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2)), np.ones(3), atol=1e-5)


def test_a_batch_must_split_evenly():
    assert meshes.data_mesh(16).size == 8
    with pytest.raises(ConfigError) as error:
        meshes.data_mesh(30)
    assert str(error.value) == (
        "A batch of 30 images cannot be split evenly over 8 devices; use --data.batch-size 24 or 32."
    )


def test_state_that_training_does_not_know_is_refused():
    model = without_norm(nnx.Rngs(0))
    model.head.counter = nnx.Variable(jnp.zeros(()))
    with pytest.raises(ArchitectureError, match=r"^head\.counter is neither nnx\.Param nor nnx\.BatchStat.*; make it"):
        split_model(model)
