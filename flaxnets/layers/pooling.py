"""Pooling: over windows, and over the whole feature map."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class MaxPool(nnx.Module):
    """Largest value in each window, with PyTorch's padding: [b, h, w, c] -> [b, ~h / strides, ~w / strides, c].

    Args:
      window: height and width of the window in pixels; the padding is `window // 2`.
      strides: step of the window in pixels.
    """

    def __init__(self, window: int, strides: int):
        self.window = window
        self.strides = strides

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        padding = (self.window // 2, (self.window - 1) // 2)
        return lax.reduce_window(
            x,
            -jnp.inf,
            lax.max,
            window_dimensions=(1, self.window, self.window, 1),
            window_strides=(1, self.strides, self.strides, 1),
            padding=((0, 0), padding, padding, (0, 0)),
        )


class GlobalMean(nnx.Module):
    """Mean over all pixels: [b, h, w, c] -> [b, c]."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        return x.mean((1, 2))
