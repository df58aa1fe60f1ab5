"""Initial values, drawn by NumPy: the same on every platform, and without a compilation for each shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *, groups: int = 1) -> jax.Array:
    """Normal with variance 2 / fan-out, for a kernel [height, width, in channels / groups, out channels].

    The fan-out is what one input value feeds: height * width * out channels / groups.

    Source: He et al. 2015, arXiv:1502.01852, section 2.2 (the backward case).
    """
    fan_out = math.prod(shape) // shape[-2] // groups
    return _draw(key, lambda random: random.standard_normal(shape, np.float32), math.sqrt(2 / fan_out), shape, dtype)


def uniform_fan_in(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform within +-1 / sqrt(fan-in), for a kernel [in features, out features]: PyTorch's linear layer."""
    bound = 1 / math.sqrt(shape[0])
    return _draw(key, lambda random: 2 * random.random(shape, np.float32) - 1, bound, shape, dtype)


def _draw(
    key: jax.Array, sample: Callable[[np.random.Generator], np.ndarray], scale: float, shape: Sequence[int], dtype: Any
) -> jax.Array:
    """`scale` times `sample` of a generator seeded by a JAX key; inside a trace, the same values by a callback."""

    def draw(key_data: jax.Array) -> np.ndarray:
        seed = np.asarray(key_data).astype(np.uint64)
        values = sample(np.random.Generator(np.random.Philox(key=seed)))
        values *= scale  # in place: getting memory takes as long as drawing
        return values.astype(dtype, copy=False)

    if isinstance(key, jax.core.Tracer):
        return jax.pure_callback(draw, jax.ShapeDtypeStruct(tuple(shape), dtype), jax.random.key_data(key))
    # jnp.asarray would compile a program for each shape.
    return jax.device_put(draw(jax.random.key_data(key)))
