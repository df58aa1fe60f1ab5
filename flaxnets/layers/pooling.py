"""Pooling: over windows, and over the whole feature map."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from flaxnets.layers.checks import require_choice
from flaxnets.layers.convolution import PADDINGS, same_padding


class MaxPool(nnx.Module):
    """Largest value in each window: [b, h, w, c] -> [b, ceil(h / strides), ceil(w / strides), c].

    Args:
      window: height and width of the window in pixels, an odd number.
      strides: step of the window in pixels.
      padding: as in `Convolution`: `symmetric` for PyTorch's, `same` for TensorFlow's.
    """

    def __init__(self, window: int, strides: int, *, padding: str = "symmetric"):
        require_choice("padding", padding, PADDINGS)
        self.window = window
        self.strides = strides
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        both = (self.window // 2, (self.window - 1) // 2)
        padding = (both, both)
        if self.padding == "same":
            padding = same_padding(x.shape[1:3], (self.window, self.window), (self.strides, self.strides))
        return _reduce_windows(x, -jnp.inf, lax.max, self.window, self.strides, padding)


class AveragePool(nnx.Module):
    """Mean of windows side by side: [b, h, w, c] -> [b, ceil(h / window), ceil(w / window), c].

    Args:
      window: height, width and step of the window in pixels; where the last one sticks out, it has fewer pixels.
    """

    def __init__(self, window: int):
        self.window = window

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        padding = [(0, -size % self.window) for size in x.shape[1:3]]
        ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
        total, pixels = (_reduce_windows(each, 0.0, lax.add, self.window, self.window, padding) for each in (x, ones))
        return total / pixels


class GlobalMean(nnx.Module):
    """Mean over all pixels: [b, h, w, c] -> [b, c]."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        return x.mean((1, 2))


def _reduce_windows(
    x: jax.Array, initial: float, function, window: int, strides: int, padding: Sequence[tuple[int, int]]
) -> jax.Array:
    return lax.reduce_window(
        x, initial, function, (1, window, window, 1), (1, strides, strides, 1), ((0, 0), *padding, (0, 0))
    )
