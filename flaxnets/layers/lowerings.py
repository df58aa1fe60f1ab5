"""The forms of a convolution: XLA's own, and those of matrix products and sums that are faster on a CPU."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

# Terms of the sums over pixels that `_shifted_kernel_gradient` writes out: from 8 to 28 are alike in speed.
CHUNK = 16
# Rows of a product for which XLA packs the other matrix. With a few less it does not; where that matrix is large, 49
# rows, the 7x7 pixels of one image, take up to 1.7 times as long as 52.
PACKED_ROWS, FEWEST_PADDED_ROWS, LARGE_SIDE = 52, 40, 512
# Channels of the blocks that `blocks` makes of groups: narrower products are slow, wider ones multiply more zeros.
BLOCK = 32


class Geometry(NamedTuple):
    """How a kernel moves over a feature map; pairs are (y, x), and paddings (before, after)."""

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_size(self, size: Sequence[int], kernel_size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the output for a feature map and a kernel of such heights and widths."""
        height, width = (
            (pixels + sum(padding) - dilation * (k - 1) - 1) // stride + 1
            for pixels, padding, dilation, k, stride in zip(
                size, self.padding, self.dilation, kernel_size, self.strides, strict=True
            )
        )
        return height, width


def plain(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's convolution: images [b, h, w, cin], kernel [kh, kw, cin / groups, cout] -> [b, h', w', cout]."""
    reach = [(k - 1) * dilation + 1 for k, dilation in zip(kernel.shape[:2], geometry.dilation, strict=True)]
    if any(max(sides) >= pixels for sides, pixels in zip(geometry.padding, reach, strict=True)):
        # Of a border as wide as the kernel, XLA's input gradient is wrong on CPUs (JAX 0.10), or its compiler aborts.
        images, geometry = padded(images, geometry.padding), geometry._replace(padding=((0, 0), (0, 0)))
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=geometry.strides,
        padding=geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def patches(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `plain`: the pixels under each kernel position side by side, times the flat kernel; one group only."""
    around = padded(images, geometry.padding)
    size = geometry.output_size(images.shape[1:3], kernel.shape[:2])
    columns = [window(around, y, x, size, geometry.strides) for y, x in offsets(kernel.shape[:2], geometry)]
    flat = jnp.concatenate(columns, axis=-1).reshape(-1, len(columns) * images.shape[-1])
    product = _product(flat, kernel.reshape(-1, kernel.shape[-1]))
    return product.reshape(images.shape[0], *size, kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def plain_forward(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `plain`; its gradients are those of `patches`. One group only."""
    return plain(images, kernel, geometry)


def _plain_forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return plain(images, kernel, geometry), (images, kernel)


def _patches_backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    return jax.vjp(functools.partial(patches, geometry=geometry), *residuals)[1](cotangent)


plain_forward.defvjp(_plain_forward, _patches_backward)


def blocks(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `plain`, some groups at a time: one dense convolution each, whose kernel is 0 between groups."""
    cin, cout, groups = images.shape[-1], kernel.shape[-1], geometry.groups
    fewest = max(1, BLOCK * groups // cin)
    together = next(count for count in range(min(fewest, groups), groups + 1) if groups % count == 0)
    # [kh, kw, cin / groups, block, group, cout / groups], then spread along a diagonal of groups
    split = kernel.reshape(*kernel.shape[:3], groups // together, together, cout // groups)
    spread = jnp.einsum("yxibgo,kg->byxkigo", split, jnp.eye(together, dtype=kernel.dtype))
    spread = spread.reshape(groups // together, *kernel.shape[:2], cin * together // groups, cout * together // groups)
    parts = jnp.split(images, groups // together, axis=-1)
    dense = geometry._replace(groups=1)
    return jnp.concatenate([plain(part, spread[i], dense) for i, part in enumerate(parts)], axis=-1)


@functools.partial(jax.jit, static_argnums=2)  # keeps its name in a traced program, where `Program` looks for it
def shifted(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `plain`, depthwise (a group for each channel): the sum of shifted feature maps, each times its weight."""
    multiplier = kernel.shape[-1] // images.shape[-1]
    return _shifted(jnp.repeat(images, multiplier, axis=-1) if multiplier > 1 else images, kernel, geometry)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    around = padded(images, geometry.padding)
    size = geometry.output_size(images.shape[1:3], kernel.shape[:2])
    weights = kernel.reshape(-1, kernel.shape[-1])
    positions = offsets(kernel.shape[:2], geometry)
    windows = (window(around, y, x, size, geometry.strides) for y, x in positions)
    return functools.reduce(jnp.add, (each * weight for each, weight in zip(windows, weights, strict=True)))


def _shifted_forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return _shifted(images, kernel, geometry), (images, kernel)


def _shifted_backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    images, kernel = residuals
    return (
        _shifted_input_gradient(images, kernel, cotangent, geometry),
        _shifted_kernel_gradient(images, kernel, cotangent, geometry),
    )


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _shifted_input_gradient(
    images: jax.Array, kernel: jax.Array, cotangent: jax.Array, geometry: Geometry
) -> jax.Array:
    weights = kernel.reshape(-1, images.shape[-1])
    return handed_back(
        (cotangent,), images.shape, kernel.shape[:2], geometry, lambda position, window: window * weights[position]
    )


def _shifted_kernel_gradient(
    images: jax.Array, kernel: jax.Array, cotangent: jax.Array, geometry: Geometry
) -> jax.Array:
    """One image at a time, so that all kernel positions read it from the cache.

    XLA sums over pixels in a loop that is not vectorised. So the sum is written out over up to `CHUNK` pixels of a row,
    which is, and what is left goes to a product with ones.
    """
    _, height, width, channels = cotangent.shape
    stride_y, stride_x = geometry.strides
    chunks = -(-width // CHUNK)
    length = -(-width // chunks)
    extra = chunks * length - width
    rows, (left, right) = geometry.padding
    around = padded(images, (rows, (left, right + extra * stride_x))).astype(jnp.float32)
    gradients = padded(cotangent, ((0, 0), (0, extra))).astype(jnp.float32)
    positions = offsets(kernel.shape[:2], geometry)
    ones = jnp.ones((1, height * chunks))

    def add_image(total: jax.Array, pair: tuple[jax.Array, jax.Array]):
        image, gradient = (each[None] for each in pair)
        sums = []
        for y, x in positions:
            products = [
                window(image, y, x + i * stride_x, (height, chunks), (stride_y, length * stride_x))
                * window(gradient, 0, i, (height, chunks), (1, length))
                for i in range(length)
            ]
            sums.append(ones @ functools.reduce(jnp.add, products).reshape(-1, channels))
        return total + jnp.concatenate(sums), None

    total, _ = lax.scan(add_image, jnp.zeros((len(positions), channels)), (around, gradients))
    return total.reshape(kernel.shape).astype(kernel.dtype)


@jax.custom_vjp
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A @ b; a few rows of zeros join those of `a` where this is faster.

    Its gradients are written as plain products too: the ones that JAX derives are slower on a CPU.
    """
    rows = a.shape[0]
    if is_symbolic_dim(rows) or not FEWEST_PADDED_ROWS <= rows < PACKED_ROWS or min(b.shape) < LARGE_SIDE:
        return a @ b
    return (jnp.pad(a, ((0, PACKED_ROWS - rows), (0, 0))) @ b)[:rows]


def _product_forward(a: jax.Array, b: jax.Array):
    return _product(a, b), (a, b)


def _product_backward(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    a, b = residuals
    return cotangent @ b.T, a.T @ cotangent


_product.defvjp(_product_forward, _product_backward)


def handed_back(
    maps: Sequence[jax.Array],
    shape: Sequence[int],
    kernel_size: Sequence[int],
    geometry: Geometry,
    term: Callable[..., jax.Array],
) -> jax.Array:
    """What each pixel of the input gets back from all output pixels that read it: [b, h, w, c], of `shape`.

    Args:
      maps: arrays of the output's shape; outside of it they are 0.
      kernel_size, geometry: of the kernel or window that read the input.
      term: `term(position, *windows)`, what comes back from output pixels that read at that position of the kernel,
        in row-major order, for the part of `maps` that belongs to them.
    """
    strides, (batch, *size, channels) = geometry.strides, shape
    # Row s * i + r of the input is read by output row i - n at the kernel's offset d where d - padding = s * n + r.
    readers: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for position, offset in enumerate(offsets(kernel_size, geometry)):
        divided = [divmod(d - before, s) for d, (before, _), s in zip(offset, geometry.padding, strides, strict=True)]
        shift, remainder = zip(*divided, strict=True)
        readers.setdefault(remainder, []).append((position, shift))
    count = [-(-pixels // stride) for pixels, stride in zip(size, strides, strict=True)]
    shifts = [shift for each in readers.values() for _, shift in each]
    reach = [
        (max(0, *(n[axis] for n in shifts)), max(0, *(count[axis] - n[axis] - maps[0].shape[axis + 1] for n in shifts)))
        for axis in (0, 1)
    ]
    around = [padded(each, reach) for each in maps]

    def total(remainder: tuple[int, int]) -> jax.Array:
        terms = [
            term(position, *(window(each, reach[0][0] - y, reach[1][0] - x, count, (1, 1)) for each in around))
            for position, (y, x) in readers.get(remainder, [])
        ]
        return functools.reduce(jnp.add, terms) if terms else jnp.zeros((batch, *count, channels), maps[0].dtype)

    if strides == (1, 1):
        return total((0, 0))
    interleaved = jnp.stack([jnp.stack([total((y, x)) for x in range(strides[1])], 3) for y in range(strides[0])], 2)
    whole = interleaved.reshape(batch, count[0] * strides[0], count[1] * strides[1], channels)
    return whole[:, : size[0], : size[1]]


def padded(maps: jax.Array, padding: Sequence[tuple[int, int]], value: float = 0) -> jax.Array:
    """Feature maps with rows above and below, and columns left and right, of one value."""
    return jnp.pad(maps, ((0, 0), *padding, (0, 0)), constant_values=value)


def offsets(kernel_size: Sequence[int], geometry: Geometry) -> list[tuple[int, int]]:
    """Where each kernel position reads, in pixels from the first one, in row-major order."""
    height, width = kernel_size
    return [(y * geometry.dilation[0], x * geometry.dilation[1]) for y in range(height) for x in range(width)]


def window(maps: jax.Array, y: int, x: int, size: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """`size` rows and columns of feature maps, `strides` apart, from row y and column x on."""
    batch, _, _, channels = maps.shape
    ends = [start + (count - 1) * stride + 1 for start, count, stride in zip((y, x), size, strides, strict=True)]
    return lax.slice(maps, (0, y, x, 0), (batch, *ends, channels), (1, *strides, 1))
