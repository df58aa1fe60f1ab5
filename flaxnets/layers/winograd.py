"""3x3 convolutions by Winograd's minimal filtering: 16 products for four output pixels, where the plain form has 36."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from flaxnets.layers.lowerings import Geometry, padded, window


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `lowerings.plain`, for one group, a kernel of 3x3, no strides or dilation, and paddings of up to 2.

    Computed in float32; rounding differs from the plain form's by about 1e-6 of the largest value.

    Source: Lavin and Gray 2015, arXiv:1509.09308, section 4.1: F(2x2, 3x3).
    """
    return _convolved(images, kernel, geometry)


def _convolved(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    weights = [[kernel[y, x] for x in range(3)] for y in range(3)]
    return _filtered(images, weights, geometry.padding, channels=0)


def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return winograd(images, kernel, geometry), (images, kernel)


def _backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    """The input's gradient is such a convolution itself; the kernel's has 16 products too, one a place in the tiles."""
    images, kernel = residuals
    turned = [[kernel[2 - y, 2 - x] for x in range(3)] for y in range(3)]
    padding = [(2 - before, 2 - after) for before, after in geometry.padding]
    _, pull = jax.vjp(lambda kernel: _convolved(images, kernel, geometry), kernel)
    return _filtered(cotangent, turned, padding, channels=1), *pull(cotangent)


winograd.defvjp(_forward, _backward)


def _filtered(
    images: jax.Array, weights: list[list[jax.Array]], padding: Sequence[tuple[int, int]], *, channels: int
) -> jax.Array:
    """Images filtered by 3x3 weights, each a matrix whose axis `channels` is that of the images' channels."""
    batch, *size, cin = images.shape
    height, width = (pixels + sum(pad) - 2 for pixels, pad in zip(size, padding, strict=True))
    tiles = -(-height // 2), -(-width // 2)
    reach = [
        (before, 2 * count + 2 - pixels - before)
        for (before, _), count, pixels in zip(padding, tiles, size, strict=True)
    ]
    around = padded(images.astype(jnp.float32), reach)
    pixels = [[window(around, y, x, tiles, (2, 2)).reshape(-1, cin) for x in range(4)] for y in range(4)]
    filters = _both_ways(_transform_filter, [[weight.astype(jnp.float32) for weight in row] for row in weights])
    contracted = (((1,), (channels,)), ((), ()))
    products = [
        [lax.dot_general(a, b, contracted) for a, b in zip(*rows, strict=True)]
        for rows in zip(_both_ways(_transform_input, pixels), filters, strict=True)
    ]
    outputs = [[part.reshape(batch, *tiles, -1) for part in row] for row in _both_ways(_transform_output, products)]
    whole = jnp.stack([jnp.stack(row, 3) for row in outputs], 2).reshape(batch, 2 * tiles[0], 2 * tiles[1], -1)
    return whole[:, :height, :width].astype(images.dtype)


def _both_ways(transform, grid: Sequence[Sequence[jax.Array]]) -> list[list[jax.Array]]:
    """A one-dimensional transform of each column, then of each row."""
    columns = [transform(*column) for column in zip(*grid, strict=True)]
    return [transform(*row) for row in zip(*columns, strict=True)]


def _transform_input(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a - c, b + c, c - b, b - d]


def _transform_filter(a: jax.Array, b: jax.Array, c: jax.Array) -> list[jax.Array]:
    return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _transform_output(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a + b + c, b - c - d]
