"""3x3 convolutions by Winograd's minimal filtering: 16 products for four output pixels, where the plain form has 36."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxnets.layers.lowerings import Geometry, padded

# From the nine weights of a kernel, in row-major order, to the sixteen of a tile: the paper's G, in both directions.
_ONE_WAY = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_FILTER = np.kron(_ONE_WAY, _ONE_WAY)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `lowerings.plain`, for one group, a kernel of 3x3, no strides or dilation, and paddings of up to 2.

    Computed in float32; rounding differs from the plain form's by about 1e-6 of the largest value.

    Source: Lavin and Gray 2015, arXiv:1509.09308, section 4.1: F(2x2, 3x3).
    """
    return _filtered(images, _filters(kernel, _FILTER), geometry.padding, channels=1)


def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return winograd(images, kernel, geometry), (images, kernel)


def _backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    """The input's gradient is such a convolution itself; the kernel's has 16 products too, one a place in the tiles."""
    images, kernel = residuals
    padding = [(2 - before, 2 - after) for before, after in geometry.padding]
    input_gradient = _filtered(cotangent, _filters(kernel, _FILTER[:, ::-1]), padding, channels=2)
    pixels, tiles = _input_tiles(images, geometry.padding)
    extra = [(0, 2 * count - size) for count, size in zip(tiles, cotangent.shape[1:3], strict=True)]
    outputs = _tiles(padded(cotangent.astype(jnp.float32), extra), tiles, 2, _transform_cotangent)
    products = lax.dot_general(pixels, outputs, (((1,), (1,)), ((0,), (0,))))
    kernel_gradient = (_FILTER.T @ products.reshape(16, -1)).reshape(kernel.shape).astype(kernel.dtype)
    return input_gradient, kernel_gradient


winograd.defvjp(_forward, _backward)


def _filters(kernel: jax.Array, transform: np.ndarray) -> jax.Array:
    """Kernel [3, 3, cin, cout] -> [16, cin, cout]."""
    return jnp.matmul(transform, kernel.astype(jnp.float32).reshape(9, -1)).reshape(16, *kernel.shape[2:])


def _filtered(images: jax.Array, filters: jax.Array, padding: Sequence[tuple[int, int]], *, channels: int) -> jax.Array:
    """Images [b, h, w, c] times filters of 16 matrices, whose axis `channels` is that of the images' channels."""
    pixels, tiles = _input_tiles(images, padding)
    products = lax.dot_general(pixels, filters, (((2,), (channels,)), ((0,), (0,))))
    products = products.reshape(4, 4, images.shape[0], *tiles, -1)
    outputs = [_transform_output(*row) for row in _transform_output(*products)]
    whole = jnp.stack([jnp.stack(row, 3) for row in outputs], 2)  # [b, tiles, 2, tiles, 2, cout]
    whole = whole.reshape(images.shape[0], 2 * tiles[0], 2 * tiles[1], -1)
    height, width = (pixels + sum(pad) - 2 for pixels, pad in zip(images.shape[1:3], padding, strict=True))
    return whole[:, :height, :width].astype(images.dtype)


def _input_tiles(images: jax.Array, padding: Sequence[tuple[int, int]]) -> tuple[jax.Array, list[int]]:
    """The transformed tiles of 4x4 input pixels, two apart, and how many there are down and across."""
    sizes = images.shape[1:3]
    tiles = [-(-(pixels + sum(pad) - 2) // 2) for pixels, pad in zip(sizes, padding, strict=True)]
    reach = [
        (before, 2 * count + 2 - pixels - before)
        for (before, _), count, pixels in zip(padding, tiles, sizes, strict=True)
    ]
    return _tiles(padded(images.astype(jnp.float32), reach), tiles, 4, _transform_input), tiles


def _tiles(maps: jax.Array, tiles: Sequence[int], reach: int, transform: Callable[..., list[jax.Array]]) -> jax.Array:
    """[b, h, w, c] in tiles of `reach` x `reach` pixels, two apart, transformed both ways -> [16, b * tiles, c].

    In two arrays rather than sixteen: each is a loop that XLA compiles.
    """
    batch, height, width, channels = maps.shape
    down, across = tiles
    pairs = maps.reshape(batch, height // 2, 2, width * channels)
    rows = jnp.stack(transform(*(pairs[:, y // 2 : y // 2 + down, y % 2] for y in range(reach))))
    pairs = rows.reshape(4, batch, down, width // 2, 2, channels)
    columns = (pairs[:, :, :, x // 2 : x // 2 + across, x % 2] for x in range(reach))
    return jnp.stack(transform(*columns), 1).reshape(16, -1, channels)


def _transform_input(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a - c, b + c, c - b, b - d]


def _transform_output(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a + b + c, b - c - d]


def _transform_cotangent(a: jax.Array, b: jax.Array) -> list[jax.Array]:
    """The transpose of the output's transform."""
    return [a, a + b, a - b, -b]
