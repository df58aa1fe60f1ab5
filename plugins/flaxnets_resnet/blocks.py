"""The two residual blocks of ResNet (He et al. 2015, arXiv:1512.03385, figure 5), with room for attention."""

from collections.abc import Callable

import jax
from flax import nnx

from flaxnets.layers import AveragePool, ConvNorm, StochasticDepth


class ResidualBlock(nnx.Module):
    """relu(residual(x) + shortcut(x)): [b, h, w, cin] -> [b, h/s, w/s, cout].

    Args:
      cin, cout: channels in and out.
      strides: step in pixels.
      unit: makes a `ConvNorm`, called as `unit(cin, cout, kernel_size, strides, ...)`.
      attention: makes the layer that weighs the residual, called as `attention(cout)`; None for none.
      drop: drops the residual at random; None for never.
      pooled_shortcut: let the shortcut stride by averaging 2x2 pixels, not by leaving three out: the D of ResNet-D
        (He et al. 2018, arXiv:1812.01187, section 4.1).
    """

    expansion = 1

    def __init__(
        self,
        cin: int,
        cout: int,
        strides: int,
        *,
        unit: Callable[..., ConvNorm],
        attention: Callable[[int], nnx.Module] | None,
        drop: StochasticDepth | None,
        pooled_shortcut: bool,
    ):
        self.attention = attention(cout) if attention else None
        self.drop = drop
        self.pool = AveragePool(strides) if pooled_shortcut and strides > 1 else None
        step = strides if self.pool is None else 1
        self.shortcut = unit(cin, cout, 1, step, activation=None) if strides > 1 or cin != cout else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        shortcut = x if self.pool is None else self.pool(x)
        shortcut = shortcut if self.shortcut is None else self.shortcut(shortcut)
        residual = self.residual(x)
        residual = residual if self.attention is None else self.attention(residual)
        residual = residual if self.drop is None else self.drop(residual)
        return jax.nn.relu(residual + shortcut)

    def residual(self, x: jax.Array) -> jax.Array:
        """What is added to the shortcut, before attention: [b, h, w, cin] -> [b, h/s, w/s, cout]."""
        raise NotImplementedError


class BasicBlock(ResidualBlock):
    """3x3, 3x3 plus shortcut: [b, h, w, cin] -> [b, h/s, w/s, cout], `inner` channels between."""

    def __init__(self, cin: int, inner: int, cout: int, strides: int, *, groups: int, unit, **settings):
        self.first = unit(cin, inner, 3, strides, groups=groups)
        self.second = unit(inner, cout, 3, groups=groups, activation=None, zero_scale=True)
        super().__init__(cin, cout, strides, unit=unit, **settings)

    def residual(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        return self.second(self.first(x))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 plus shortcut: [b, h, w, cin] -> [b, h/s, w/s, cout], `inner` channels between.

    The 3x3 convolution carries the stride, as in torchvision's "v1.5"; in the paper the first 1x1 does.
    """

    expansion = 4

    def __init__(self, cin: int, inner: int, cout: int, strides: int, *, groups: int, unit, **settings):
        self.reduce = unit(cin, inner, 1)
        self.spatial = unit(inner, inner, 3, strides, groups=groups)
        self.expand = unit(inner, cout, 1, activation=None, zero_scale=True)
        super().__init__(cin, cout, strides, unit=unit, **settings)

    def residual(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        return self.expand(self.spatial(self.reduce(x)))
