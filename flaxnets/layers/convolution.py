"""Two-dimensional convolution, with the lowering that is fastest on the platform that it runs on."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from flaxnets.layers.checks import require_choice
from flaxnets.layers.initializers import he_normal

# Where the pixels that a kernel needs beyond the border go: PyTorch's rule and TensorFlow's.
PADDINGS = ("symmetric", "same")


class Geometry(NamedTuple):
    """How a kernel moves over a feature map."""

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    groups: int = 1


class Convolution(nnx.Module):
    """Convolution that keeps the size: [b, h, w, cin] -> [b, ceil(h / strides), ceil(w / strides), cout].

    Args:
      in_channels, out_channels: feature maps in and out; both must be divisible by `groups`.
      kernel_size: height and width of the kernel in pixels, an odd number.
      strides: step of the kernel in pixels, in both directions.
      padding: `symmetric` for PyTorch's, `kernel_size // 2` on each side; `same` for TensorFlow's, only as much as the
        kernel needs, the odd pixel at the bottom and right. They differ where `strides` is not 1.
      groups: number of groups of channels that do not see each other; `in_channels` of them is depthwise.
      use_bias: whether each output channel has a bias (zero at first).
      dtype: type of the computation; parameters are float32.
      rngs: source of the initial kernel (`he_normal`).

    The kernel is [kernel_size, kernel_size, in_channels / groups, out_channels].
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
        use_bias: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        require_choice("padding", padding, PADDINGS)
        self.in_channels = in_channels
        self.padding = padding
        before, after = kernel_size // 2, (kernel_size - 1) // 2
        self.geometry = Geometry((strides, strides), ((before, after), (before, after)), groups)
        self.dtype = dtype
        self.kernel = nnx.Param(
            he_normal(rngs.params(), (kernel_size, kernel_size, in_channels // groups, out_channels), groups)
        )
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve feature maps [b, h, w, cin]."""
        geometry = self.geometry
        if self.padding == "same":
            geometry = geometry._replace(padding=same_padding(x.shape[1:3], self.kernel.shape[:2], geometry.strides))
        x = convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype), geometry)
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


def same_padding(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """TensorFlow's padding (before, after) in y and x, of a window that moves over a feature map of `size` pixels."""
    (top, bottom), (left, right) = lax.padtype_to_pads(size, window, strides, "SAME")
    return (top, bottom), (left, right)


def convolve(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolve images [b, h, w, cin] with a kernel [kh, kw, cin / groups, cout].

    On GPU and TPU this is `lax.conv_general_dilated`. XLA's CPU convolutions are 2 to 20 times slower than a matrix
    product where the kernel is 1x1 (backward) or the output has few pixels (both ways), so there they become one.
    """
    if not _better_as_product(images.shape, kernel.shape, geometry):
        return _plain(images, kernel, geometry)
    return _convolve_by_platform(images, kernel, geometry)


def _better_as_product(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], geometry: Geometry) -> bool:
    if geometry.groups > 1:
        return False
    pixels = 1
    for size, k, stride, padding in zip(
        image_shape[1:3], kernel_shape[:2], geometry.strides, geometry.padding, strict=True
    ):
        pixels *= (size + sum(padding) - k) // stride + 1
    return kernel_shape[:2] == (1, 1) or pixels <= 4


# The rule has a gradient of its own, so that the backward pass is again one branch a platform: differentiating through
# `platform_dependent` would keep the residuals of both.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_by_platform(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.platform_dependent(
        images,
        kernel,
        cpu=functools.partial(_product_of_patches, geometry=geometry),
        default=functools.partial(_plain, geometry=geometry),
    )


def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry):
    return _convolve_by_platform(images, kernel, geometry), (images, kernel)


def _backward(geometry: Geometry, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    def gradients_of(form):
        def gradients(images: jax.Array, kernel: jax.Array, cotangent: jax.Array):
            return jax.vjp(functools.partial(form, geometry=geometry), images, kernel)[1](cotangent)

        return gradients

    return lax.platform_dependent(
        *residuals, cotangent, cpu=gradients_of(_product_of_patches), default=gradients_of(_plain)
    )


_convolve_by_platform.defvjp(_forward, _backward)


def _plain(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=geometry.strides,
        padding=geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _product_of_patches(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The pixels under each kernel position side by side [b * h' * w', kh * kw * cin], times the flat kernel."""
    kernel_height, kernel_width, cin, cout = kernel.shape
    stride_y, stride_x = geometry.strides
    padded = jnp.pad(images, ((0, 0), *geometry.padding, (0, 0)))
    batch, height, width, _ = padded.shape
    out_height = (height - kernel_height) // stride_y + 1
    out_width = (width - kernel_width) // stride_x + 1
    patches = [
        lax.slice(
            padded,
            (0, y, x, 0),
            (batch, y + (out_height - 1) * stride_y + 1, x + (out_width - 1) * stride_x + 1, cin),
            (1, stride_y, stride_x, 1),
        )
        for y in range(kernel_height)
        for x in range(kernel_width)
    ]
    flat = jnp.concatenate(patches, axis=-1).reshape(-1, kernel_height * kernel_width * cin)
    return _product(flat, kernel.reshape(-1, cout)).reshape(batch, out_height, out_width, cout)


@jax.custom_vjp
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A @ b, whose gradients are written as plain products too: the ones that JAX derives are slower on a CPU."""
    return a @ b


def _product_forward(a: jax.Array, b: jax.Array):
    return a @ b, (a, b)


def _product_backward(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    a, b = residuals
    return cotangent @ b.T, a.T @ cotangent


_product.defvjp(_product_forward, _product_backward)
