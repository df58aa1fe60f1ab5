"""my_net: a residual network of two stages, to start from."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import ConvNorm, GlobalMean, classifier
from flaxnets.plugin import Architecture, ImageClassifier


class Block(nnx.Module):
    """3x3, 3x3 plus shortcut: [b, h, w, cin] -> [b, h / strides, w / strides, cout]."""

    def __init__(self, cin: int, cout: int, strides: int, *, dtype: Any, rngs: nnx.Rngs):
        self.first = ConvNorm(cin, cout, 3, strides, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(cout, cout, 3, activation=None, dtype=dtype, rngs=rngs)
        self.shortcut = ConvNorm(cin, cout, 1, strides, activation=None, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map feature maps [b, h, w, cin]."""
        return jax.nn.relu(self.second(self.first(x)) + self.shortcut(x))


def build(
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
    width: int = 32,  # an option of this architecture: `--options width 64`
) -> ImageClassifier:
    """Build the network; every keyword besides the first four is an option of the user."""
    return ImageClassifier(
        stem=ConvNorm(in_channels, width, 3, 2, dtype=dtype, rngs=rngs),
        stages=[
            [Block(width, width, 1, dtype=dtype, rngs=rngs)],
            [Block(width, 2 * width, 2, dtype=dtype, rngs=rngs)],
        ],
        head=GlobalMean(),
        classifier=classifier(2 * width, num_classes, dtype=dtype, rngs=rngs),
    )


my_net = Architecture(build=build, num_params=143_304, paper="unpublished", image_size=32)
