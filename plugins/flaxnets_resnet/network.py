"""Builds every network of the ResNet family from its design."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import (
    ConvNorm,
    GlobalMean,
    MaxPool,
    StochasticDepth,
    classifier,
    require_choice,
    require_positive,
    require_rate,
    round_channels,
)
from flaxnets.layers import (
    dropout as dropout_layer,
)
from flaxnets.plugin import ImageClassifier
from flaxnets_resnet.blocks import BasicBlock, Bottleneck

STEMS = ("standard", "small")


@dataclasses.dataclass(frozen=True)
class Design:
    """What tells the networks of the family apart.

    Attributes:
      block: the residual block.
      blocks: how many of it each stage has.
      groups: of the 3x3 convolutions: ResNeXt's cardinality.
      group_width: channels a group in the first stage, at `groups=1` of the whole 3x3 convolution.
      variant_d: three 3x3 convolutions as stem and shortcuts that stride by averaging (arXiv:1812.01187, section 4.1).
      attention: layer that weighs each residual, called as `attention(channels, dtype=, rngs=)`.
    """

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, ...]
    groups: int = 1
    group_width: int = 64
    variant_d: bool = False
    attention: Callable[..., nnx.Module] | None = None


def build_resnet(
    design: Design,
    /,
    *,
    width: float = 1.0,
    stem: str = "standard",
    padding: str = "symmetric",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> ImageClassifier:
    """A ResNet whose stage i is 64 * 2^i wide, times the block's expansion; every stage but the first halves the map.

    Args:
      design: the network; the other arguments are options of the user.
      width: multiplies all channels, which are then rounded to multiples of 8.
      stem: `standard` for 7x7 with stride 2 and pooling, so that the network's stride is 32; `small` for images of
        about 32x32 pixels: 3x3 with stride 1, no pooling, total stride 8.
      padding: `symmetric` as in PyTorch, `same` as in TensorFlow, there with batch norm's epsilon of 1e-3.
      dropout: share of the embedding that is dropped in training.
      stochastic_depth: probability that the last block is dropped for an image in training; it grows linearly from
        the first block (Huang et al. 2016, arXiv:1603.09382).
      num_classes, in_channels, dtype, rngs: see `Architecture.build`.

    Raises:
      ArchitectureError: an option that cannot be what it is.
    """
    require_positive("width", width)
    require_rate("stochastic_depth", stochastic_depth)
    unit = functools.partial(ConvNorm, padding=padding, dtype=dtype, rngs=rngs)
    attention = functools.partial(design.attention, dtype=dtype, rngs=rngs) if design.attention else None
    widths = [round_channels(64 * 2**stage * width) for stage in range(len(design.blocks))]
    channels = widths[0]
    stem_layers = _stem(stem, in_channels, channels, deep=design.variant_d, unit=unit, padding=padding)
    rates = iter([stochastic_depth * (i + 1) / sum(design.blocks) for i in range(sum(design.blocks))])
    stages = []
    for stage, (depth, stage_width) in enumerate(zip(design.blocks, widths, strict=True)):
        stages.append([])
        for position in range(depth):
            rate = next(rates)
            cout = stage_width * design.block.expansion
            block = design.block(
                channels,
                max(1, stage_width * design.group_width // 64) * design.groups,
                cout,
                strides=2 if stage > 0 and position == 0 else 1,
                groups=design.groups,
                unit=unit,
                attention=attention,
                drop=StochasticDepth(rate, rngs=rngs) if rate else None,
                pooled_shortcut=design.variant_d,
            )
            stages[-1].append(block)
            channels = cout
    drop = dropout_layer(dropout, rngs=rngs)
    return ImageClassifier(
        stem=nnx.Sequential(*stem_layers),
        stages=stages,
        head=nnx.Sequential(GlobalMean(), drop) if drop else GlobalMean(),
        classifier=classifier(channels, num_classes, dtype=dtype, rngs=rngs),
        stride=(4 if stem == "standard" else 1) * 2 ** (len(design.blocks) - 1),
    )


def _stem(
    stem: str, in_channels: int, channels: int, *, deep: bool, unit: Callable[..., ConvNorm], padding: str
) -> list[nnx.Module]:
    """Images [b, h, w, in_channels] -> [b, h/4, w/4, channels]; the small stem keeps the size."""
    require_choice("stem", stem, STEMS)
    strides = 2 if stem == "standard" else 1
    layers: list[nnx.Module] = []
    if deep:
        narrow = round_channels(channels / 2)
        layers += [unit(in_channels, narrow, 3, strides), unit(narrow, narrow, 3), unit(narrow, channels, 3)]
    else:
        layers += [unit(in_channels, channels, 7 if stem == "standard" else 3, strides)]
    if stem == "standard":
        layers += [MaxPool(3, 2, padding=padding)]
    return layers
