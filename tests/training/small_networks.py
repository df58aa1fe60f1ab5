"""Networks of a few hundred parameters, their training step, and a batch to run it on."""

import functools

import jax
import numpy as np
import optax
from flax import nnx
from flaxnets_tiny import tiny_net

from flaxnets.layers import ConvNorm, GlobalMean, classifier
from flaxnets.plugin import ImageClassifier
from flaxnets.recipe import Optimizer
from flaxnets.training import mesh as meshes
from flaxnets.training.optimizer import make_optimizer
from flaxnets.training.state import initial_state, split_model
from flaxnets.training.step import make_train_step

STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
BATCH = {
    "image": np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8),
    "label": np.random.default_rng(1).integers(0, 5, 32).astype(np.int32),
    "weight": np.ones(32, np.float32),
}


def mesh_of(devices: int) -> jax.sharding.Mesh:
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )


def normed(rngs: nnx.Rngs) -> ImageClassifier:
    unit = functools.partial(ConvNorm, rngs=rngs)
    return ImageClassifier(
        stem=unit(3, 8, 3, 2), stages=[[unit(8, 8)]], head=GlobalMean(), classifier=classifier(8, 5, rngs=rngs)
    )


def without_norm(rngs: nnx.Rngs) -> ImageClassifier:
    stem, block = (nnx.Conv(channels, 8, (3, 3), strides=2, rngs=rngs) for channels in (3, 8))
    return ImageClassifier(stem=stem, stages=[[block]], head=GlobalMean(), classifier=classifier(8, 5, rngs=rngs))


def with_dropout(rngs: nnx.Rngs) -> ImageClassifier:
    return tiny_net.build(num_classes=5, rngs=rngs)


def prepared(
    build, *, optimizer=None, batch_norm="per_device", rematerialise=False, frozen=(), keep_average=False, **options
):
    """A training step and its first state."""
    definition, params, batch_stats = split_model(
        build(nnx.Rngs(0)), batch_norm=batch_norm, frozen=frozen, rematerialise=rematerialise
    )
    rate = optax.constant_schedule(0.1)
    update = make_optimizer(optimizer or Optimizer(), rate)
    options = {**STATISTICS, "label_smoothing": 0.1, "frozen": frozen, **options}
    step = make_train_step(definition, update, rate=rate, **options)
    state = initial_state(params, batch_stats, update, seed=3, frozen=frozen, keep_average=keep_average)
    return step, state, definition


def run(step, state, devices: int, steps: int = 2):
    mesh = mesh_of(devices)
    state = jax.device_put(state, meshes.copied(mesh))
    batch = jax.device_put(BATCH, meshes.split(mesh))
    parallel = meshes.data_parallel(step, mesh)
    for _ in range(steps):
        state, metrics = parallel(state, batch)
    return jax.device_get((state, metrics))


def assert_close(a, b, tolerance: float):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
