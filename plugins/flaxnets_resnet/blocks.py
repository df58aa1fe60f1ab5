"""The two residual blocks of ResNet (He et al. 2015, arXiv:1512.03385, figure 5)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import ConvNorm


class BasicBlock(nnx.Module):
    """3x3, 3x3 plus shortcut: [b, h, w, cin] -> [b, h/s, w/s, width]."""

    expansion = 1

    def __init__(self, cin: int, width: int, strides: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        unit = functools.partial(ConvNorm, dtype=dtype, rngs=rngs)
        self.first = unit(cin, width, 3, strides)
        self.second = unit(width, width, 3, activation=None, zero_scale=True)
        self.shortcut = unit(cin, width, 1, strides, activation=None) if strides > 1 or cin != width else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return jax.nn.relu(self.second(self.first(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 plus shortcut: [b, h, w, cin] -> [b, h/s, w/s, 4 * width].

    The 3x3 convolution carries the stride, as in torchvision's "v1.5"; in the paper the first 1x1 does.
    """

    expansion = 4

    def __init__(self, cin: int, width: int, strides: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        unit = functools.partial(ConvNorm, dtype=dtype, rngs=rngs)
        cout = self.expansion * width
        self.reduce = unit(cin, width, 1)
        self.spatial = unit(width, width, 3, strides)
        self.expand = unit(width, cout, 1, activation=None, zero_scale=True)
        self.shortcut = unit(cin, cout, 1, strides, activation=None) if strides > 1 or cin != cout else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return jax.nn.relu(self.expand(self.spatial(self.reduce(x))) + shortcut)
