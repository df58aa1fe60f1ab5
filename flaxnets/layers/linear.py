"""The last layer of a classifier."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from flaxnets.layers.initializers import uniform_fan_in


def classifier(in_features: int, num_classes: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs) -> nnx.Linear | None:
    """Linear layer embedding [b, in_features] -> logits [b, num_classes]; None where `num_classes` is 0."""
    if num_classes == 0:
        return None
    return nnx.Linear(in_features, num_classes, kernel_init=uniform_fan_in, dtype=dtype, rngs=rngs)
