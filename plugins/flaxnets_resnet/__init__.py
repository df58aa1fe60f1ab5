"""ResNet (He et al. 2015), as a table of variants."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import ConvNorm, GlobalMean, MaxPool, classifier
from flaxnets.plugin import Architecture, ImageClassifier
from flaxnets_resnet.blocks import BasicBlock, Bottleneck

PAPER = "arXiv:1512.03385"


def build_resnet(
    block: type[BasicBlock] | type[Bottleneck],
    blocks: tuple[int, ...],
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
) -> ImageClassifier:
    """A ResNet with `blocks[i]` blocks in stage i, 64 * 2^i wide; every stage but the first halves the feature map."""
    stem = nnx.Sequential(ConvNorm(in_channels, 64, 7, 2, dtype=dtype, rngs=rngs), MaxPool(3, 2))
    channels = 64
    stages = []
    for stage, depth in enumerate(blocks):
        width = 64 * 2**stage
        stages.append([])
        for position in range(depth):
            strides = 2 if stage > 0 and position == 0 else 1
            stages[-1].append(block(channels, width, strides, dtype=dtype, rngs=rngs))
            channels = width * block.expansion
    return ImageClassifier(
        stem=stem,
        stages=stages,
        head=GlobalMean(),
        classifier=classifier(channels, num_classes, dtype=dtype, rngs=rngs),
    )


def _variant(
    block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...], *, num_params: int, paper: str
) -> Architecture:
    return Architecture(build=functools.partial(build_resnet, block, blocks), num_params=num_params, paper=paper)


# fmt: off
#                     block       blocks per stage  parameters at 1000 classes (torchvision)
resnet18  = _variant(BasicBlock, (2, 2, 2, 2),      num_params=11_689_512, paper=PAPER)
resnet34  = _variant(BasicBlock, (3, 4, 6, 3),      num_params=21_797_672, paper=PAPER)
resnet50  = _variant(Bottleneck, (3, 4, 6, 3),      num_params=25_557_032, paper=PAPER)
resnet101 = _variant(Bottleneck, (3, 4, 23, 3),     num_params=44_549_160, paper=PAPER)
resnet152 = _variant(Bottleneck, (3, 8, 36, 3),     num_params=60_192_808, paper=PAPER)
# fmt: on
