"""MobileNet V3 (Howard et al. 2019), large and small, as a table of variants."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import (
    ConvNorm,
    SqueezeExcite,
    classifier,
    require_positive,
    round_channels,
    uniform_fan_in,
)
from flaxnets.layers import (
    dropout as dropout_layer,
)
from flaxnets.plugin import Architecture, ImageClassifier, Layout
from flaxnets_mobilenet.blocks import Head, InvertedResidual, stem_strides
from flaxnets_mobilenet.layouts import TIMM_V3, TORCHVISION_V3

PAPER = "arXiv:1905.02244"
IMAGENET1K_V1 = "torchvision IMAGENET1K_V1"
TABLE = "the paper, table 5"


class Row(NamedTuple):
    """Blocks that are alike, but for the stride, which only the first one has."""

    blocks: int
    kernel_size: int
    hidden: int
    channels: int
    has_attention: bool
    activation: Any
    strides: int


RE, HS = jax.nn.relu, jax.nn.hard_swish


@dataclasses.dataclass(frozen=True)
class Design:
    """What tells the networks of the family apart.

    Attributes:
      stages: rows of the paper's table, those of the same width in one stage.
      last_convolution, embedding: channels of the last convolution, and of the linear layer after it.
      minimal: 3x3 kernels only, ReLU only, no attention: the authors' "minimalistic" form.
    """

    stages: tuple[tuple[Row, ...], ...]
    last_convolution: int
    embedding: int
    minimal: bool = False


# fmt: off
LARGE = Design(
    #   blocks  kernel hidden out  attention     stride
    stages=(  # table 1 of the paper
        (Row(1, 3,  16,  16, False, RE, 1),),
        (Row(1, 3,  64,  24, False, RE, 2), Row(1, 3,  72,  24, False, RE, 1)),
        (Row(1, 5,  72,  40, True,  RE, 2), Row(2, 5, 120,  40, True,  RE, 1)),
        (Row(1, 3, 240,  80, False, HS, 2), Row(1, 3, 200,  80, False, HS, 1), Row(2, 3, 184, 80, False, HS, 1)),
        (Row(1, 3, 480, 112, True,  HS, 1), Row(1, 3, 672, 112, True,  HS, 1)),
        (Row(1, 5, 672, 160, True,  HS, 2), Row(2, 5, 960, 160, True,  HS, 1)),
    ),
    last_convolution=960,
    embedding=1280,
)
SMALL = Design(
    stages=(  # table 2 of the paper
        (Row(1, 3,  16,  16, True,  RE, 2),),
        (Row(1, 3,  72,  24, False, RE, 2), Row(1, 3,  88,  24, False, RE, 1)),
        (Row(1, 5,  96,  40, True,  HS, 2), Row(2, 5, 240,  40, True,  HS, 1)),
        (Row(1, 5, 120,  48, True,  HS, 1), Row(1, 5, 144,  48, True,  HS, 1)),
        (Row(1, 5, 288,  96, True,  HS, 2), Row(2, 5, 576,  96, True,  HS, 1)),
    ),
    last_convolution=576,
    embedding=1024,
)
# fmt: on
LARGE_MINIMAL = dataclasses.replace(LARGE, minimal=True)
SMALL_MINIMAL = dataclasses.replace(SMALL, minimal=True)


def build_mobilenet_v3(
    design: Design,
    /,
    *,
    width: float = 1.0,
    stem: str = "standard",
    padding: str = "symmetric",
    epsilon: float | None = None,
    dropout: float = 0.2,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> ImageClassifier:
    """Inverted residuals with squeeze-excite and hard swish, and a linear layer between the mean and the classifier.

    Args:
      design: the network; the other arguments are options of the user.
      width: multiplies all channels, which are then rounded to multiples of 8; the embedding keeps its size, and the
        stem too below 0.75.
      stem: `standard` halves the image; `small`, for images of about 32x32 pixels, does not.
      padding: `symmetric` as in PyTorch, `same` as in TensorFlow.
      epsilon: added to batch norm's variance; if None 1e-5, with TensorFlow's padding 1e-3.
      dropout: share of the embedding that is dropped in training.
      num_classes, in_channels, dtype, rngs: see `Architecture.build`.

    Raises:
      ArchitectureError: an option that cannot be what it is.
    """
    require_positive("width", width)
    unit = functools.partial(ConvNorm, padding=padding, epsilon=epsilon, momentum=0.99, dtype=dtype, rngs=rngs)
    activation = RE if design.minimal else HS
    channels = unscaled = 16
    if width >= 0.75:
        channels = round_channels(channels * width)
    stem_layer = unit(in_channels, channels, 3, stem_strides(stem), activation=activation)
    stages = []
    for rows in design.stages:
        stages.append([])
        for row in rows:
            for position in range(row.blocks):
                cout = round_channels(row.channels * width)
                # The expansion is a ratio, so that the hidden width follows from the rounded input.
                hidden = round_channels(channels * row.hidden / unscaled)
                attention = None
                if row.has_attention and not design.minimal:
                    attention = SqueezeExcite(
                        hidden, round_channels(hidden / 4), gate=jax.nn.hard_sigmoid, dtype=dtype, rngs=rngs
                    )
                block = InvertedResidual(
                    channels,
                    hidden,
                    cout,
                    3 if design.minimal else row.kernel_size,
                    row.strides if position == 0 else 1,
                    activation=RE if design.minimal else row.activation,
                    unit=unit,
                    attention=attention,
                )
                stages[-1].append(block)
                channels, unscaled = cout, row.channels
    last = round_channels(design.last_convolution * width)
    head = Head(
        expand=unit(channels, last, 1, activation=activation),
        hidden=nnx.Linear(last, design.embedding, kernel_init=uniform_fan_in, dtype=dtype, rngs=rngs),
        activation=activation,
        dropout=dropout_layer(dropout, rngs=rngs),
    )
    return ImageClassifier(
        stem=stem_layer,
        stages=stages,
        head=head,
        classifier=classifier(design.embedding, num_classes, dtype=dtype, rngs=rngs),
        stride=16 * stem_strides(stem),
    )


def _variant(
    design: Design,
    *,
    layouts: Mapping[str, Layout],
    num_params: int,
    paper: str,
    top1: tuple[float, str] | None = None,
    **options: Any,
) -> Architecture:
    build = functools.partial(build_mobilenet_v3, design, **options)
    return Architecture(build=build, num_params=num_params, paper=paper, top1=top1, layouts=layouts)


# By whose weights are published: batch norm's epsilon is theirs too. timm has TensorFlow's for the minimal networks.
_torchvision = functools.partial(_variant, layouts=TORCHVISION_V3, epsilon=1e-3)
_timm = functools.partial(_variant, layouts=TIMM_V3)

# fmt: off
mobilenet_v3_large = _torchvision(LARGE, num_params=5_483_032, paper=PAPER, top1=(74.042, IMAGENET1K_V1))
mobilenet_v3_small = _torchvision(SMALL, num_params=2_542_856, paper=PAPER, top1=(67.668, IMAGENET1K_V1))
mobilenet_v3_large_075 = _timm(LARGE, width=0.75, num_params=3_993_528, paper=PAPER, top1=(73.3, TABLE))
mobilenet_v3_small_075 = _timm(SMALL, width=0.75, num_params=2_041_872, paper=PAPER, top1=(65.4, TABLE))
mobilenet_v3_large_minimal = _timm(LARGE_MINIMAL, padding="same", num_params=3_924_288, paper=PAPER)
mobilenet_v3_small_minimal = _timm(SMALL_MINIMAL, padding="same", num_params=2_044_736, paper=PAPER)
# fmt: on
