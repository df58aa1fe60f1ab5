"""What architectures are built with; everything here is public to plugins."""

from flaxnets.layers.attention import CBAM, Attention, ChannelAttention, SpatialAttention, SqueezeExcite
from flaxnets.layers.channels import round_channels
from flaxnets.layers.checks import require_choice, require_odd, require_positive, require_rate
from flaxnets.layers.convolution import Convolution, convolve
from flaxnets.layers.dropout import StochasticDepth, dropout
from flaxnets.layers.initializers import he_normal, uniform_fan_in
from flaxnets.layers.linear import classifier
from flaxnets.layers.norm import BatchNorm, ConvNorm
from flaxnets.layers.pooling import AveragePool, GlobalMean, MaxPool

__all__ = [
    "CBAM",
    "Attention",
    "AveragePool",
    "BatchNorm",
    "ChannelAttention",
    "ConvNorm",
    "Convolution",
    "GlobalMean",
    "MaxPool",
    "SpatialAttention",
    "SqueezeExcite",
    "StochasticDepth",
    "classifier",
    "convolve",
    "dropout",
    "he_normal",
    "require_choice",
    "require_odd",
    "require_positive",
    "require_rate",
    "round_channels",
    "uniform_fan_in",
]
