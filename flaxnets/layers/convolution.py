"""Two-dimensional convolution, with the lowering that is fastest on the platform that it runs on."""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.export import is_symbolic_dim

from flaxnets.errors import ConfigError
from flaxnets.layers.checks import require_choice
from flaxnets.layers.initializers import he_normal
from flaxnets.layers.lowerings import Geometry, blocks, patches, plain, plain_forward, shifted
from flaxnets.layers.portable import is_portable
from flaxnets.layers.winograd import winograd

# Where the pixels that a kernel needs beyond the border go: PyTorch's rule and TensorFlow's.
PADDINGS = ("symmetric", "same")


class Convolution(nnx.Module):
    """Convolution that keeps the size: [b, h, w, cin] -> [b, ceil(h / strides), ceil(w / strides), cout].

    Args:
      in_channels, out_channels: feature maps in and out; both must be divisible by `groups`.
      kernel_size: height and width of the kernel in pixels, an odd number.
      strides: step of the kernel in pixels, in both directions.
      padding: `symmetric` for PyTorch's, `dilation * (kernel_size // 2)` on each side; `same` for TensorFlow's, only as
        much as the kernel needs, the odd pixel at the bottom and right. They differ where `strides` is not 1.
      dilation: distance in pixels between the places that neighbours in the kernel read (Yu and Koltun 2015,
        arXiv:1511.07122); 1 for none between.
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
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        require_choice("padding", padding, PADDINGS)
        self.in_channels = in_channels
        self.padding = padding
        before, after = dilation * (kernel_size // 2), dilation * ((kernel_size - 1) // 2)
        self.geometry = Geometry((strides, strides), ((before, after), (before, after)), (dilation, dilation), groups)
        self.dtype = dtype
        self.kernel = nnx.Param(
            he_normal(rngs.params(), (kernel_size, kernel_size, in_channels // groups, out_channels), groups=groups)
        )
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve feature maps [b, h, w, cin]."""
        geometry = self.geometry
        if self.padding == "same":
            reach = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, self.kernel.shape, strict=False)]
            geometry = geometry._replace(padding=same_padding(x.shape[1:3], reach, geometry.strides))
        x = convolve(x.astype(self.dtype), self.kernel[...].astype(self.dtype), geometry)
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


def same_padding(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """TensorFlow's padding (before, after) in y and x, of a window that moves over a feature map of `size` pixels."""
    (top, bottom), (left, right) = lax.padtype_to_pads(size, window, strides, "SAME")
    return (top, bottom), (left, right)


def convolve(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolve images [b, h, w, cin] with a kernel [kh, kw, cin / groups, cout].

    On GPU and TPU this is `lax.conv_general_dilated`, forward and backward; on a CPU the form that `cpu_form` chooses.
    A border as wide as the kernel is padded before, on all of them.
    It has derivatives of any order in reverse mode. `FLAXNETS_CONV=plain` gives XLA's form on every platform, for
    comparison and for forward mode (`jax.jvp`), which the other forms lack; so does `portable`, for what is exported.

    Raises:
      ConfigError: the environment variable FLAXNETS_CONV is neither `fast` nor `plain`.
    """
    form = cpu_form(images.shape, kernel.shape, geometry)
    return plain(images, kernel, geometry) if form is plain else _traced_once(images, kernel, geometry, form)


Form = Callable[..., Any]  # of images, kernel and geometry; some are custom_vjp objects, which JAX types loosely


def cpu_form(image_shape: Sequence[int], kernel_shape: Sequence[int], geometry: Geometry) -> Form:
    """The form of a convolution that is fastest on a CPU, forward and backward, by its kind and size.

    Measured by `experiments/benchmarks/convolutions.py`, which prints each form's speed in each direction and which of
    them this table takes; on another CPU it shows where the table should differ. A batch of unknown size, which only an
    exported program has, counts as one image.
    """
    name = os.environ.get("FLAXNETS_CONV", "fast")
    if name not in ("fast", "plain"):
        raise ConfigError(f"FLAXNETS_CONV cannot be {name!r}: set it to fast or plain, or leave it unset for fast.")
    (batch, *size, cin), (*kernel_size, _, cout) = image_shape, kernel_shape
    batch = 1 if is_symbolic_dim(batch) else batch
    output_size = geometry.output_size(size, kernel_size)
    pixels = math.prod(output_size)
    tiles = math.prod(-(-side // 2) for side in output_size)  # of 2x2 pixels, for Winograd
    is_3x3, is_wide = kernel_size == [3, 3] and geometry.dilation == (1, 1), min(cin, cout) >= 128
    steps_by_1 = geometry.strides == (1, 1) and _pads_up_to(2, geometry)
    rules = (
        (name == "plain" or is_portable(), plain),
        (min(output_size) < 1, plain),  # the kernel does not fit in: XLA gives an empty map, other forms fail
        (geometry.groups == cin > 1, shifted),  # depthwise
        (geometry.groups > 1, blocks),
        (kernel_size == [1, 1], patches),  # pointwise: a matrix product
        (is_3x3 and steps_by_1 and is_wide and batch * tiles >= 48 and pixels >= 2.5 * tiles, winograd),
        (pixels <= 4 or batch * pixels <= 64, patches),
        (is_wide and (pixels <= 9 or batch * pixels <= 192), patches),
        (is_3x3 and not steps_by_1 and min(cin, cout) >= 64, plain_forward),
    )
    return next((form for holds, form in rules if holds), plain)


def _pads_up_to(pixels: int, geometry: Geometry) -> bool:
    return max(side for sides in geometry.padding for side in sides) <= pixels


# The choice has a gradient of its own, so that the backward pass is again one branch a platform: differentiating
# through `platform_dependent` would keep the residuals of both.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_platform(images: jax.Array, kernel: jax.Array, geometry: Geometry, form: Form) -> jax.Array:
    return lax.platform_dependent(
        images,
        kernel,
        cpu=functools.partial(form, geometry=geometry),
        default=functools.partial(plain, geometry=geometry),
    )


def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry, form: Form):
    return _by_platform(images, kernel, geometry, form), (images, kernel)


def _backward(geometry: Geometry, form: Form, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    def gradients_of(form):
        def gradients(images: jax.Array, kernel: jax.Array, cotangent: jax.Array):
            return jax.vjp(functools.partial(form, geometry=geometry), images, kernel)[1](cotangent)

        return gradients

    return lax.platform_dependent(*residuals, cotangent, cpu=gradients_of(form), default=gradients_of(plain))


_by_platform.defvjp(_forward, _backward)

# Networks repeat their shapes: of each, tracing and lowering then see one.
_traced_once = jax.jit(_by_platform, static_argnums=(2, 3))
