"""Pooling: over windows, and over the whole feature map."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from flaxnets.layers.checks import require_choice
from flaxnets.layers.convolution import PADDINGS, same_padding
from flaxnets.layers.lowerings import Geometry, handed_back, offsets, padded, window
from flaxnets.layers.portable import is_portable


class MaxPool(nnx.Module):
    """Largest value in each window: [b, h, w, c] -> [b, ceil(h / strides), ceil(w / strides), c].

    Args:
      window: height and width of the window in pixels, an odd number.
      strides: step of the window in pixels.
      padding: as in `Convolution`: `symmetric` for PyTorch's, `same` for TensorFlow's.

    It can be differentiated in reverse mode, not by `jax.jvp`.
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
        geometry = Geometry((self.strides, self.strides), padding)
        if not is_portable():
            return _largest_by_platform(x, self.window, geometry)
        # The border's own pixels in place of -inf, of which whole numbers of 8 bits know nothing. Each window that sees
        # such a copy sees the original, too, so no maximum changes.
        for axis, (before, after) in enumerate(geometry.padding, start=1):
            first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, -1, None, axis=axis)
            x = jnp.concatenate([first] * before + [x] + [last] * after, axis)
        return _largest(x, self.window, geometry._replace(padding=((0, 0), (0, 0))))


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


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """Maximum over an axis, which is kept with length 1; the first of equal values gets the gradient, as in PyTorch.

    The gradient of `jnp.max` compares `x` with its maximum. Where a compiler computes `x` twice and rounds it in two
    ways, which XLA does on a CPU, none is equal and the gradient is 0 / 0.
    """
    return x.max(axis, keepdims=True)


@largest.defjvp
def _largest_derivative(axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]):
    (x,), (tangent,) = primals, tangents
    first = jnp.argmax(x, axis, keepdims=True)
    place = lax.broadcasted_iota(first.dtype, x.shape, axis % x.ndim)
    value, derivative = (jnp.where(place == first, each, 0).sum(axis, keepdims=True) for each in (x, tangent))
    return value, derivative


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _largest_by_platform(x: jax.Array, size: int, geometry: Geometry) -> jax.Array:
    """XLA's window on GPU and TPU. On a CPU its gradient costs several times a convolution's, so windows are slices."""
    return lax.platform_dependent(
        x,
        cpu=functools.partial(_largest_of_slices, size=size, geometry=geometry),
        default=functools.partial(_largest, size=size, geometry=geometry),
    )


def _largest_forward(x: jax.Array, size: int, geometry: Geometry):
    return _largest_by_platform(x, size, geometry), x


def _largest_backward(size: int, geometry: Geometry, x: jax.Array, cotangent: jax.Array):
    def of_slices(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        # The first of equal values gets the gradient, as on other platforms. The slices are compared with each other,
        # not with the result: computed in two places, `x` may be rounded in two ways, and equal to nothing.
        _, first = functools.reduce(
            lambda best, each: (
                jnp.maximum(best[0], each[1]),
                jnp.where(each[1] > best[0], each[0], best[1]),
            ),
            enumerate(_slices(x, size, geometry)),
            (jnp.array(-jnp.inf, x.dtype), jnp.int32(0)),
        )
        return handed_back(
            (first, cotangent),
            x.shape,
            (size, size),
            geometry,
            lambda position, first, cotangent: jnp.where(first == position, cotangent, 0),
        )

    def of_windows(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: _largest(x, size, geometry), x)[1](cotangent)[0]

    return (lax.platform_dependent(x, cotangent, cpu=of_slices, default=of_windows),)


_largest_by_platform.defvjp(_largest_forward, _largest_backward)


def _largest(x: jax.Array, size: int, geometry: Geometry) -> jax.Array:
    return _reduce_windows(x, -jnp.inf, lax.max, size, geometry.strides[0], geometry.padding)


def _largest_of_slices(x: jax.Array, size: int, geometry: Geometry) -> jax.Array:
    return functools.reduce(jnp.maximum, _slices(x, size, geometry))


def _slices(x: jax.Array, size: int, geometry: Geometry) -> list[jax.Array]:
    """For each position in the window, in row-major order, the pixels that all windows see there."""
    around = padded(x, geometry.padding, -jnp.inf)
    count = geometry.output_size(x.shape[1:3], (size, size))
    return [window(around, y, x, count, geometry.strides) for y, x in offsets((size, size), geometry)]


def _reduce_windows(
    x: jax.Array, initial: float, function, window: int, strides: int, padding: Sequence[tuple[int, int]]
) -> jax.Array:
    return lax.reduce_window(
        x, initial, function, (1, window, window, 1), (1, strides, strides, 1), ((0, 0), *padding, (0, 0))
    )
