"""MobileNet V1 (Howard et al. 2017), as a table of variants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import ConvNorm, classifier, require_positive
from flaxnets.layers import dropout as dropout_layer
from flaxnets.plugin import Architecture, ImageClassifier
from flaxnets_mobilenet.blocks import Head, SeparableBlock, stem_strides
from flaxnets_mobilenet.layouts import V1

PAPER = "arXiv:1704.04861"
TABLE = "the paper, table 6"

# Channels, blocks and stride of each stage: table 1 of the paper, whose second last stride is a misprint for 1.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


def build_mobilenet_v1(
    *,
    width: float = 1.0,
    stem: str = "standard",
    padding: str = "symmetric",
    dropout: float = 0.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> ImageClassifier:
    """A stack of depthwise separable convolutions with ReLU6.

    Args:
      width: the paper's alpha; multiplies all channels, which are cut to whole numbers, at least 8.
      stem: `standard` halves the image; `small`, for images of about 32x32 pixels, does not.
      padding: `symmetric` as in PyTorch, `same` as in TensorFlow, there with batch norm's epsilon of 1e-3.
      dropout: share of the embedding that is dropped in training.
      num_classes, in_channels, dtype, rngs: see `Architecture.build`.

    Raises:
      ArchitectureError: an option that cannot be what it is.
    """
    require_positive("width", width)
    unit = functools.partial(ConvNorm, padding=padding, dtype=dtype, rngs=rngs)
    channels = max(8, int(32 * width))
    stem_layer = unit(in_channels, channels, 3, stem_strides(stem), activation=jax.nn.relu6)
    stages = []
    for stage_channels, depth, strides in STAGES:
        stages.append([])
        for position in range(depth):
            cout = max(8, int(stage_channels * width))
            stages[-1].append(SeparableBlock(channels, cout, strides if position == 0 else 1, unit=unit))
            channels = cout
    return ImageClassifier(
        stem=stem_layer,
        stages=stages,
        head=Head(dropout=dropout_layer(dropout, rngs=rngs)),
        classifier=classifier(channels, num_classes, dtype=dtype, rngs=rngs),
        stride=16 * stem_strides(stem),
    )


def _variant(width: float, *, num_params: int, paper: str, top1: tuple[float, str]) -> Architecture:
    build = functools.partial(build_mobilenet_v1, width=width)
    return Architecture(build=build, num_params=num_params, paper=paper, top1=top1, layouts=V1)


# fmt: off
#                            width  parameters at 1000 classes
mobilenet_v1     = _variant(1.0,  num_params=4_231_976, paper=PAPER, top1=(70.6, TABLE))
mobilenet_v1_075 = _variant(0.75, num_params=2_585_560, paper=PAPER, top1=(68.4, TABLE))
mobilenet_v1_050 = _variant(0.5,  num_params=1_331_592, paper=PAPER, top1=(63.7, TABLE))
mobilenet_v1_025 = _variant(0.25, num_params=470_072,   paper=PAPER, top1=(50.6, TABLE))
# fmt: on
