"""ResNet with the convolutional block attention module (Woo et al. 2018), as a table of variants."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flaxnets_resnet.blocks import BasicBlock, Bottleneck
from flaxnets_resnet.network import Design, build_resnet

from flaxnets.layers import CBAM
from flaxnets.plugin import Architecture, ImageClassifier
from flaxnets_cbam.layouts import LAYOUTS

PAPER = "arXiv:1807.06521"
TABLE = "the paper, table 4"


def build_cbam_resnet(
    design: Design,
    /,
    *,
    mlp_bias: bool = True,
    spatial_norm: bool = True,
    kernel_size: int = 7,
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
    """A ResNet whose residuals pass channel attention, then spatial attention, after their last batch norm.

    Args:
      design: the ResNet.
      mlp_bias: whether the channel attention's perceptron has biases, as in the authors' code.
      spatial_norm: whether a batch norm follows the spatial attention's convolution, as in the authors' code.
      kernel_size: size of that convolution in pixels, an odd number.
      width, stem, padding, dropout, stochastic_depth, num_classes, in_channels, dtype, rngs: as in `build_resnet`.

    Raises:
      ArchitectureError: an option that cannot be what it is.
    """
    attention = functools.partial(CBAM, mlp_bias=mlp_bias, spatial_norm=spatial_norm, kernel_size=kernel_size)
    return build_resnet(
        dataclasses.replace(design, attention=attention),
        width=width,
        stem=stem,
        padding=padding,
        dropout=dropout,
        stochastic_depth=stochastic_depth,
        num_classes=num_classes,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )


def _variant(
    block: type[BasicBlock] | type[Bottleneck],
    blocks: tuple[int, ...],
    *,
    num_params: int,
    paper: str,
    top1: tuple[float, str],
) -> Architecture:
    build = functools.partial(build_cbam_resnet, Design(block, blocks))
    return Architecture(build=build, num_params=num_params, paper=paper, top1=top1, layouts=LAYOUTS)


# fmt: off
#                          block       blocks per stage  parameters at 1000 classes (the authors' code)
cbam_resnet18  = _variant(BasicBlock, (2, 2, 2, 2),  num_params=11_779_392, paper=PAPER, top1=(70.73, TABLE))
cbam_resnet34  = _variant(BasicBlock, (3, 4, 6, 3),  num_params=21_960_468, paper=PAPER, top1=(74.01, TABLE))
cbam_resnet50  = _variant(Bottleneck, (3, 4, 6, 3),  num_params=28_089_624, paper=PAPER, top1=(77.34, TABLE))
cbam_resnet101 = _variant(Bottleneck, (3, 4, 23, 3), num_params=49_330_172, paper=PAPER, top1=(78.49, TABLE))
# fmt: on
