"""Batch norm, and the unit of nearly every convolutional network: convolution, batch norm, activation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from flaxnets.layers.convolution import Convolution


class BatchNorm(nnx.BatchNorm):
    """Batch norm over all axes but the last, as one multiply-add a value: [..., c] -> [..., c].

    `nnx.BatchNorm` subtracts the mean first, which is a pass of its own over memory, forward and backward.

    Args:
      num_features: channels.
      momentum: share of the running averages that a step keeps; PyTorch's 0.1 is 0.9 here.
      epsilon: added to the variance.
      zero_scale: start the scale at 0 in place of 1.
      dtype: type of the output; statistics are float32 always.
      rngs: as in all layers; nothing is drawn.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        zero_scale: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        start = nnx.initializers.zeros_init() if zero_scale else nnx.initializers.ones_init()
        super().__init__(num_features, momentum=momentum, epsilon=epsilon, scale_init=start, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride] (modes, not flags)
        """Normalise feature maps by their own statistics in training mode, by running averages in inference mode."""
        scale: Any = self.scale
        bias: Any = self.bias
        if self.use_running_average:
            mean, variance = self.mean[...], self.var[...]
        else:
            mean, variance = _statistics(x, self.axis_name)
            for average, new in ((self.mean, mean), (self.var, variance)):  # `average[...] = ` is slow to trace
                average.set_value(lax.stop_gradient(self.momentum * average[...] + (1 - self.momentum) * new))
        return _normalised(x, mean, variance, scale[...], bias[...], self.epsilon, self.dtype)


# Networks repeat their shapes: of each, tracing then sees one.
@functools.partial(jax.jit, static_argnums=1)
def _statistics(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel, over the devices of an axis too if one is named."""
    values, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    moments = jnp.stack([values.mean(axes), jnp.square(values).mean(axes)])
    mean, square = lax.pmean(moments, axis_name) if axis_name else moments
    return mean, jnp.maximum(square - jnp.square(mean), 0)  # rounding may leave it below 0


@functools.partial(jax.jit, static_argnums=(5, 6))
def _normalised(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    dtype: Any,
) -> jax.Array:
    factor = scale * lax.rsqrt(variance + epsilon)
    return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(dtype)


class ConvNorm(nnx.Module):
    """Convolution without bias, batch norm, activation: [b, h, w, cin] -> [b, h / strides, w / strides, cout].

    Args:
      in_channels, out_channels, kernel_size, strides, padding, groups, dtype, rngs: as in `Convolution`.
      epsilon: added to batch norm's variance; if None 1e-5, or TensorFlow's 1e-3 where the padding is TensorFlow's.
      momentum: share of batch norm's running averages that a step keeps; PyTorch's 0.1 is 0.9 here.
      activation: applied last; None for none.
      zero_scale: start the batch norm's scale at 0, so that a residual block starts as the identity
        (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        padding: str = "symmetric",
        groups: int = 1,
        epsilon: float | None = None,
        momentum: float = 0.9,
        activation: Callable[[jax.Array], jax.Array] | None = jax.nn.relu,
        zero_scale: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.convolution = Convolution(
            in_channels,
            out_channels,
            kernel_size,
            strides,
            padding=padding,
            groups=groups,
            dtype=dtype,
            rngs=rngs,
        )
        if epsilon is None:
            epsilon = 1e-3 if padding == "same" else 1e-5
        self.norm: Any = BatchNorm(  # None once it is folded into the convolution
            out_channels,
            momentum=momentum,
            epsilon=epsilon,
            zero_scale=zero_scale,
            dtype=dtype,
            rngs=rngs,
        )
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        x = self.convolution(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)
