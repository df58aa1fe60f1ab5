"""What architectures are built with; everything here is public to plugins."""

from flaxnets.layers.convolution import Convolution, convolve
from flaxnets.layers.initializers import he_normal, uniform_fan_in
from flaxnets.layers.linear import classifier
from flaxnets.layers.norm import ConvNorm
from flaxnets.layers.pooling import GlobalMean, MaxPool

__all__ = [
    "ConvNorm",
    "Convolution",
    "GlobalMean",
    "MaxPool",
    "classifier",
    "convolve",
    "he_normal",
    "uniform_fan_in",
]
