"""What flaxnets expects of an architecture, as checks that every plugin author can run.

In a plugin's own tests: `check_architecture(registry.get("my_net"))`.
"""

import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets.models import in_mode, shapes_of
from flaxnets.plugin import Architecture, ImageClassifier
from flaxnets.training.state import ModelDefinition, split_model


def check_architecture(architecture: Architecture, *, image_size: int = 64, **options: Any) -> None:
    """Run all checks; a plugin that passes trains, evaluates and resumes like flaxnets' own.

    Args:
      architecture: what the plugin's entry point points at.
      image_size: height and width in pixels of the images that `check_behaviour` computes with.
      options: passed on to `architecture.build` by `check_behaviour`.

    Raises:
      AssertionError: says what is wrong.
    """
    check_structure(architecture)
    check_behaviour(architecture, image_size=image_size, **options)


def check_structure(architecture: Architecture) -> None:
    """Shapes, dtypes and the number of parameters, by abstract evaluation: nothing is computed or compiled.

    Raises:
      AssertionError: says what is wrong.
    """
    size = architecture.image_size
    model = _abstract(architecture)
    assert isinstance(model, ImageClassifier), f"build returns a {type(model).__name__}, not an ImageClassifier"
    params = nnx.state(model, nnx.Param)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert count == architecture.num_params, f"it has {count:,} parameters; num_params says {architecture.num_params:,}"
    others = nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.BatchStat, nnx.RngState)))
    assert not jax.tree.leaves(others), f"flaxnets would not know how to train {nnx.to_pure_dict(others)}"

    logits = _evaluate(model, (2, size, size, 3))
    assert logits.shape == (2, 1000), f"logits are {logits.shape} for 2 images and 1000 classes"
    maps = _evaluate(model, (2, size, size, 3), lambda model, images: model.features(images))
    assert len(maps) == len(model.stages), f"{len(maps)} feature maps of {len(model.stages)} stages"
    assert all(feature_map.ndim == 4 for feature_map in maps), "feature maps are not [batch, height, width, channels]"
    sizes = [size, *(feature_map.shape[1] for feature_map in maps)]
    assert sizes == sorted(sizes, reverse=True), f"feature maps grow: {sizes} pixels"

    half = _abstract(architecture, num_classes=7, in_channels=1, dtype=jnp.bfloat16)
    wrong = {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(half, nnx.Param))} - {"float32"}
    assert not wrong, f"parameters are {wrong} where the computation is bfloat16; keep them float32"
    logits = _evaluate(half, (2, size, size, 1))
    assert logits.shape == (2, 7), f"logits are {logits.shape} for 2 grey images and 7 classes"
    assert logits.dtype == jnp.float32, f"logits are {logits.dtype} where the computation is bfloat16"
    embedding = _evaluate(_abstract(architecture, num_classes=0), (2, size, size, 3))
    assert embedding.ndim == 2, f"without a classifier it returns {embedding.shape}, not [batch, features]"


def check_behaviour(architecture: Architecture, *, image_size: int = 64, **options: Any) -> None:
    """Inference, gradients, batch statistics and serialisation, computed on random images.

    Args:
      architecture: what to check.
      image_size: height and width in pixels.
      options: passed on to `architecture.build`.

    Raises:
      AssertionError: says what is wrong.
    """
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((4, image_size, image_size, 3)), jnp.float32)
    model = architecture.build(num_classes=5, in_channels=3, dtype=jnp.float32, rngs=nnx.Rngs(0), **options)
    definition, params, batch_stats = split_model(model)
    params = _moved(params, random)

    infer = jax.jit(definition.infer)
    logits = infer(params, batch_stats, images)
    assert np.isfinite(logits).all(), "logits are not finite"
    assert (logits == infer(params, batch_stats, images)).all(), "inference differs from call to call"
    first = infer(params, batch_stats, images.at[1:].multiply(3.0))[0]
    scale = float(jnp.abs(logits).max())
    assert np.allclose(first, logits[0], atol=1e-4 * scale), "inference of an image depends on the others in its batch"

    stats = _check_training(definition, params, batch_stats, images, random)

    restored = _through_bytes({"params": params, "batch_stats": stats})
    again = infer(restored["params"], restored["batch_stats"], images)
    assert (again == infer(params, stats, images)).all(), "logits change when the state is written and read"


def _check_training(
    definition: ModelDefinition, params: Any, batch_stats: Any, images: jax.Array, random: np.random.Generator
) -> Any:
    """Check loss, gradients and batch statistics of a training step, and return the statistics."""

    @jax.jit
    def train(params: Any, key: jax.Array):
        def loss(params: Any):
            logits, stats = definition.train(params, batch_stats, images, key)
            return jnp.square(logits - jnp.arange(20.0).reshape(4, 5)).mean(), stats

        return jax.value_and_grad(loss, has_aux=True)(params)

    unreached = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)}
    stats = batch_stats
    for attempt in range(3):  # a few ReLUs may be dead at one place, and a gradient 0 by chance
        (value, stats), gradients = jax.device_get(train(params, jax.random.key(attempt)))
        assert np.isfinite(value), "the training loss is not finite"
        for path, gradient in jax.tree.leaves_with_path(gradients):
            name = jax.tree_util.keystr(path)
            assert np.isfinite(gradient).all(), f"the gradient of {name} is not finite"
            if gradient.any():
                unreached.discard(name)
        params = _moved(params, random)
    assert not unreached, f"no gradient reaches {', '.join(sorted(unreached))}"
    initial = jax.tree.leaves_with_path(jax.device_get(batch_stats))
    for (path, before), after in zip(initial, jax.tree.leaves(stats), strict=True):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(after).all(), f"the batch statistic {name} is not finite"
        assert (before != after).any(), f"training leaves the batch statistic {name} as it is"
    return stats


def _moved(params: Any, random: np.random.Generator) -> Any:
    """Parameters a little elsewhere: of the initial values some are 0, so that the gradients behind them are 0 too."""
    return jax.tree.map(
        lambda a: a + np.asarray(0.05 * random.standard_normal(a.shape), a.dtype), jax.device_get(params)
    )


def _abstract(architecture: Architecture, num_classes: int = 1000, in_channels: int = 3, dtype: Any = jnp.float32):
    """The model with shapes in place of arrays."""
    return shapes_of(
        lambda rngs: architecture.build(num_classes=num_classes, in_channels=in_channels, dtype=dtype, rngs=rngs)
    )


def _evaluate(
    model: ImageClassifier, shape: tuple[int, ...], compute: Callable[..., Any] = lambda model, images: model(images)
) -> Any:
    """The shapes of what inference on images of this shape returns."""
    definition, state = nnx.split(in_mode(model, training=False))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda state, images: compute(nnx.merge(definition, state), images), state, images)


def _through_bytes(tree: Any) -> Any:
    """The arrays of a tree, written to a file and read again."""
    leaves, structure = jax.tree.flatten(tree)
    file = io.BytesIO()
    np.savez(file, *leaves)
    file.seek(0)
    with np.load(file) as arrays:
        return jax.tree.unflatten(structure, [jnp.asarray(arrays[f"arr_{i}"]) for i in range(len(leaves))])
