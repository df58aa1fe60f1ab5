"""3x3 convolutions by Winograd's minimal filtering: 16 products for four output pixels, where the plain form has 36."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flaxnets.layers.lowerings import Geometry, padded, plain, window


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `lowerings.plain`, for one group, a kernel of 3x3, no strides or dilation, and paddings of up to 2.

    Computed in float32; rounding differs from the plain form's by about 1e-6 of the largest value. Only the kernel's
    gradient is the plain form's.

    Source: Lavin and Gray 2015, arXiv:1509.09308, section 4.1: F(2x2, 3x3).
    """
    batch, _, _, cin = images.shape
    cout = kernel.shape[-1]
    height, width = geometry.output_size(images.shape[1:3], (3, 3))
    tiles = -(-height // 2), -(-width // 2)
    reach = [
        (before, 2 * count + 2 - pixels - before)
        for (before, _), count, pixels in zip(geometry.padding, tiles, images.shape[1:3], strict=True)
    ]
    around = padded(images.astype(jnp.float32), reach)
    pixels = [[window(around, y, x, tiles, (2, 2)).reshape(-1, cin) for x in range(4)] for y in range(4)]
    weights = [[kernel[y, x].astype(jnp.float32) for x in range(3)] for y in range(3)]
    inputs, filters = _both_ways(_transform_input, pixels), _both_ways(_transform_filter, weights)
    products = [[inputs[y][x] @ filters[y][x] for x in range(4)] for y in range(4)]
    outputs = [[part.reshape(batch, *tiles, cout) for part in row] for row in _both_ways(_transform_output, products)]
    whole = jnp.stack([jnp.stack(row, 3) for row in outputs], 2).reshape(batch, 2 * tiles[0], 2 * tiles[1], cout)
    return whole[:, :height, :width].astype(images.dtype)


def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return winograd(images, kernel, geometry), (images, kernel)


def _backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    images, kernel = residuals
    (top, bottom), (left, right) = geometry.padding
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    input_gradient = winograd(cotangent, turned, Geometry(padding=((2 - top, 2 - bottom), (2 - left, 2 - right))))
    _, pull = jax.vjp(lambda kernel: plain(images, kernel, geometry), kernel)
    return input_gradient, *pull(cotangent)


winograd.defvjp(_forward, _backward)


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
