"""MobileNet V2 (Sandler et al. 2018), as a table of variants."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import ConvNorm, classifier, require_positive, round_channels
from flaxnets.layers import dropout as dropout_layer
from flaxnets.plugin import Architecture, ImageClassifier, Layout
from flaxnets_mobilenet.blocks import Head, InvertedResidual, stem_strides
from flaxnets_mobilenet.layouts import TIMM_V2, TORCHVISION_V2

PAPER = "arXiv:1801.04381"
IMAGENET1K_V1 = "torchvision IMAGENET1K_V1"

# Expansion, channels, blocks and stride of each stage: the paper's t, c, n and s (table 2).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def build_mobilenet_v2(
    *,
    width: float = 1.0,
    stem: str = "standard",
    padding: str = "symmetric",
    dropout: float = 0.2,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> ImageClassifier:
    """Inverted residuals with linear bottlenecks and ReLU6; each row of the paper's table is a stage.

    Args:
      width: multiplies all channels, which are then rounded to multiples of 8; the last convolution never shrinks.
      stem: `standard` halves the image; `small`, for images of about 32x32 pixels, does not.
      padding: `symmetric` as in PyTorch, `same` as in TensorFlow, there with batch norm's epsilon of 1e-3.
      dropout: share of the embedding that is dropped in training.
      num_classes, in_channels, dtype, rngs: see `Architecture.build`.

    Raises:
      ArchitectureError: an option that cannot be what it is.
    """
    require_positive("width", width)
    unit = functools.partial(ConvNorm, padding=padding, dtype=dtype, rngs=rngs)
    channels = round_channels(32 * width)
    stem_layer = unit(in_channels, channels, 3, stem_strides(stem), activation=jax.nn.relu6)
    stages = []
    for expansion, stage_channels, depth, strides in STAGES:
        stages.append([])
        for position in range(depth):
            cout = round_channels(stage_channels * width)
            step = strides if position == 0 else 1
            block = InvertedResidual(channels, expansion * channels, cout, 3, step, activation=jax.nn.relu6, unit=unit)
            stages[-1].append(block)
            channels = cout
    last = round_channels(1280 * max(1.0, width))
    expand = unit(channels, last, 1, activation=jax.nn.relu6)
    return ImageClassifier(
        stem=stem_layer,
        stages=stages,
        head=Head(expand=expand, dropout=dropout_layer(dropout, rngs=rngs)),
        classifier=classifier(last, num_classes, dtype=dtype, rngs=rngs),
        stride=16 * stem_strides(stem),
    )


def _variant(
    width: float, layouts: Mapping[str, Layout], *, num_params: int, paper: str, top1: tuple[float, str] | None = None
) -> Architecture:
    build = functools.partial(build_mobilenet_v2, width=width)
    return Architecture(build=build, num_params=num_params, paper=paper, top1=top1, layouts=layouts)


# fmt: off
#                            width  layouts         parameters at 1000 classes (torchvision, timm)
mobilenet_v2_140 = _variant(1.4,  TIMM_V2,        num_params=6_108_776, paper=PAPER, top1=(74.7, "the paper, table 4"))
mobilenet_v2     = _variant(1.0,  TORCHVISION_V2, num_params=3_504_872, paper=PAPER, top1=(71.878, IMAGENET1K_V1))
mobilenet_v2_075 = _variant(0.75, TIMM_V2,        num_params=2_636_424, paper=PAPER)
mobilenet_v2_050 = _variant(0.5,  TIMM_V2,        num_params=1_968_680, paper=PAPER)
mobilenet_v2_035 = _variant(0.35, TIMM_V2,        num_params=1_677_128, paper=PAPER)
# fmt: on
