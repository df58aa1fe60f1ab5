"""Two convolutions and dropout, written with Flax's own layers: a plugin needs nothing of flaxnets but the contract."""

import jax
from flax import nnx

from flaxnets.plugin import Architecture, ImageClassifier


class Block(nnx.Module):
    """3x3 convolution, batch norm, ReLU: [b, h, w, cin] -> [b, ceil(h / 2), ceil(w / 2), cout]."""

    def __init__(self, cin, cout, *, dtype, rngs):
        self.convolution = nnx.Conv(cin, cout, (3, 3), strides=2, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(cout, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        """Map feature maps."""
        return jax.nn.relu(self.norm(self.convolution(x)))


class Head(nnx.Module):
    """Mean over the pixels, then dropout: [b, h, w, c] -> [b, c]."""

    def __init__(self, rate, *, rngs):
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        """Map feature maps to embeddings."""
        return self.dropout(x.mean((1, 2)))


def build(*, num_classes=1000, in_channels=3, dtype=None, rngs):
    """Build it."""
    return ImageClassifier(
        stem=Block(in_channels, 8, dtype=dtype, rngs=rngs),
        stages=[[Block(8, 16, dtype=dtype, rngs=rngs)]],
        head=Head(0.1, rngs=rngs),
        classifier=nnx.Linear(16, num_classes, dtype=dtype, rngs=rngs) if num_classes else None,
    )


tiny_net = Architecture(build=build, num_params=18_416, paper="tests/third_party")
