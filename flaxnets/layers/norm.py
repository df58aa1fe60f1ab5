"""The unit of nearly every convolutional network: convolution, batch norm, activation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers.convolution import Convolution


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
        self.norm: Any = nnx.BatchNorm(  # None once it is folded into the convolution
            out_channels,
            momentum=momentum,
            epsilon=epsilon,
            scale_init=nnx.initializers.zeros_init() if zero_scale else nnx.initializers.ones_init(),
            dtype=dtype,
            rngs=rngs,
        )
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        x = self.convolution(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)
