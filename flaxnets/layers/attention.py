"""Attention that weighs a feature map's channels or pixels: each layer maps [b, h, w, c] -> [b, h, w, c]."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers.checks import require_odd, require_positive
from flaxnets.layers.convolution import Convolution
from flaxnets.layers.initializers import uniform_fan_in
from flaxnets.layers.norm import ConvNorm
from flaxnets.layers.pooling import largest


class Attention(nnx.Module):
    """Weighs a feature map: [b, h, w, c] -> [b, h, w, c]. `flaxnets explain` shows the weights of every such layer."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Weigh feature maps [b, h, w, c]."""
        return x * self.weights(x)

    def weights(self, x: jax.Array) -> jax.Array:
        """What feature maps [b, h, w, c] are multiplied by: [b, 1, 1, c] for channels, [b, h, w, 1] for pixels."""
        raise NotImplementedError


class SqueezeExcite(Attention):
    """Weighs channels by what their means say: [b, h, w, c] -> [b, h, w, c].

    Args:
      channels: feature maps in and out.
      hidden: width of the layer between; if None `channels` / 16 as in the paper, a multiple of 8, at least 8.
      gate: maps the last layer's output to weights, such as `jax.nn.hard_sigmoid`.
      dtype: type of the computation.
      rngs: source of the initial kernels.

    Source: Hu et al. 2017, arXiv:1709.01507.
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        *,
        gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        hidden = max(8, int(channels / 16 + 4) // 8 * 8) if hidden is None else hidden
        self.reduce = _linear(channels, hidden, dtype=dtype, rngs=rngs)
        self.expand = _linear(hidden, channels, dtype=dtype, rngs=rngs)
        self.gate = gate

    def weights(self, x: jax.Array) -> jax.Array:
        """Weights of the channels, [b, 1, 1, c]."""
        return self.gate(self.expand(jax.nn.relu(self.reduce(x.mean((1, 2))))))[:, None, None, :]


class ChannelAttention(Attention):
    """Weighs channels by their means and maxima, which one two-layer perceptron reads: [b, h, w, c] -> [b, h, w, c].

    Args:
      channels: feature maps in and out.
      reduction: `channels` over the width of the layer between.
      mlp_bias: whether the perceptron's layers have biases, as in the authors' code.
      dtype: type of the computation.
      rngs: source of the initial kernels.

    Source: Woo et al. 2018, arXiv:1807.06521, section 3.1.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        mlp_bias: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        require_positive("reduction", reduction)
        linear = functools.partial(_linear, use_bias=mlp_bias, dtype=dtype, rngs=rngs)
        hidden = max(1, channels // reduction)
        self.reduce = linear(channels, hidden)
        self.expand = linear(hidden, channels)

    def weights(self, x: jax.Array) -> jax.Array:
        """Weights of the channels, [b, 1, 1, c]."""
        maxima = largest(x.reshape(x.shape[0], -1, x.shape[-1]), axis=1)[:, 0]
        weights = jax.nn.sigmoid(self._perceptron(x.mean((1, 2))) + self._perceptron(maxima))
        return weights[:, None, None, :]

    def _perceptron(self, pooled: jax.Array) -> jax.Array:
        return self.expand(jax.nn.relu(self.reduce(pooled)))


class SpatialAttention(Attention):
    """Weighs pixels by the maximum and mean over their channels, which a convolution mixes: [b, h, w, c] -> the same.

    Args:
      kernel_size: of that convolution, in pixels: an odd number.
      norm: whether a batch norm follows it, as in the authors' code; its scale starts at 0, so every weight at 1/2.
      dtype: type of the computation.
      rngs: source of the initial kernel.

    Raises:
      ArchitectureError: `kernel_size` is even, so that the kernel has no middle.

    Source: Woo et al. 2018, arXiv:1807.06521, section 3.2.
    """

    def __init__(self, kernel_size: int = 7, *, norm: bool = True, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        require_odd("kernel_size", kernel_size)
        if norm:
            self.mix = ConvNorm(
                2, 1, kernel_size, momentum=0.99, activation=None, zero_scale=True, dtype=dtype, rngs=rngs
            )
        else:
            self.mix = Convolution(2, 1, kernel_size, dtype=dtype, rngs=rngs)

    def weights(self, x: jax.Array) -> jax.Array:
        """Weights of the pixels, [b, h, w, 1]."""
        pooled = jnp.concatenate([largest(x, axis=-1), x.mean(-1, keepdims=True)], axis=-1)
        return jax.nn.sigmoid(self.mix(pooled))


class CBAM(nnx.Module):
    """Channel attention, then spatial attention: [b, h, w, c] -> [b, h, w, c].

    Args:
      channels: feature maps in and out.
      reduction, mlp_bias: as in `ChannelAttention`.
      kernel_size, spatial_norm: as `kernel_size` and `norm` in `SpatialAttention`.
      dtype: type of the computation.
      rngs: source of the initial kernels.

    Source: Woo et al. 2018, arXiv:1807.06521.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        mlp_bias: bool = True,
        kernel_size: int = 7,
        spatial_norm: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.channel = ChannelAttention(channels, reduction=reduction, mlp_bias=mlp_bias, dtype=dtype, rngs=rngs)
        self.spatial = SpatialAttention(kernel_size, norm=spatial_norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Weigh feature maps [b, h, w, c]."""
        return self.spatial(self.channel(x))


def _linear(in_features: int, out_features: int, *, use_bias: bool = True, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(in_features, out_features, use_bias=use_bias, kernel_init=uniform_fan_in, dtype=dtype, rngs=rngs)
