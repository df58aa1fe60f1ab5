"""The parts of which MobileNets are made: two blocks and a head."""

from collections.abc import Callable

import jax
from flax import nnx

from flaxnets.layers import ConvNorm, GlobalMean, require_choice

Activation = Callable[[jax.Array], jax.Array]


class SeparableBlock(nnx.Module):
    """Depthwise 3x3, then pointwise 1x1: [b, h, w, cin] -> [b, h/s, w/s, cout].

    Source: MobileNet V1, arXiv:1704.04861, figure 3.
    """

    def __init__(self, cin: int, cout: int, strides: int, *, unit: Callable[..., ConvNorm]):
        self.depthwise = unit(cin, cin, 3, strides, groups=cin, activation=jax.nn.relu6)
        self.pointwise = unit(cin, cout, 1, activation=jax.nn.relu6)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        return self.pointwise(self.depthwise(x))


class InvertedResidual(nnx.Module):
    """Expand by 1x1, depthwise k x k, attention, project by 1x1: [b, h, w, cin] -> [b, h/s, w/s, cout].

    The input is added to the output where both have the same shape.

    Args:
      cin, hidden, cout: channels in, between and out; there is no expansion where `hidden` is `cin`.
      kernel_size, strides: of the depthwise convolution.
      activation: after the first two convolutions; none follows the third, the linear bottleneck.
      unit: makes a `ConvNorm`, called as `unit(cin, cout, kernel_size, strides, ...)`.
      attention: layer between the second and third convolution; None for none.

    Source: MobileNet V2, arXiv:1801.04381, figure 3; with attention V3, arXiv:1905.02244, figure 4.
    """

    def __init__(
        self,
        cin: int,
        hidden: int,
        cout: int,
        kernel_size: int,
        strides: int,
        *,
        activation: Activation,
        unit: Callable[..., ConvNorm],
        attention: nnx.Module | None = None,
    ):
        self.expand = unit(cin, hidden, 1, activation=activation) if hidden != cin else None
        self.depthwise = unit(hidden, hidden, kernel_size, strides, groups=hidden, activation=activation)
        self.attention = attention
        self.project = unit(hidden, cout, 1, activation=None)
        self.is_residual = strides == 1 and cin == cout

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        y = y if self.attention is None else self.attention(y)
        y = self.project(y)
        return x + y if self.is_residual else y


class Head(nnx.Module):
    """Last 1x1 convolution, mean over the pixels, hidden linear layer, dropout: [b, h, w, c] -> [b, d].

    Args:
      expand: the convolution; None for none.
      hidden: the linear layer after the mean (V3's "efficient last stage"); None for none.
      activation: after `hidden`.
      dropout: None for none.
    """

    def __init__(
        self,
        *,
        expand: ConvNorm | None = None,
        hidden: nnx.Linear | None = None,
        activation: Activation | None = None,
        dropout: nnx.Dropout | None = None,
    ):
        self.expand = expand
        self.mean = GlobalMean()
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map the last feature map [b, h, w, c] to embeddings."""
        x = x if self.expand is None else self.expand(x)
        x = self.mean(x)
        x = x if self.hidden is None else self.hidden(x)
        x = x if self.activation is None else self.activation(x)
        return x if self.dropout is None else self.dropout(x)


def stem_strides(stem: str) -> int:
    """2 for the `standard` stem; 1 for the `small` one, for images of about 32x32 pixels. Raises ArchitectureError."""
    require_choice("stem", stem, ("standard", "small"))
    return 2 if stem == "standard" else 1
