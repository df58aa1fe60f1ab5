"""Pooling: over windows, and over the whole feature map."""

import jax
from flax import nnx


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
        return nnx.max_pool(x, (self.window, self.window), (self.strides, self.strides), (padding, padding))


class GlobalMean(nnx.Module):
    """Mean over all pixels: [b, h, w, c] -> [b, c]."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool feature maps [b, h, w, c]."""
        return x.mean((1, 2))
