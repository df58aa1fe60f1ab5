"""ResNet (He et al. 2015) and its wide, grouped, D and squeeze-excite forms, as a table of variants."""

import functools

from flaxnets.layers import SqueezeExcite
from flaxnets.plugin import Architecture
from flaxnets_resnet.blocks import BasicBlock, Bottleneck
from flaxnets_resnet.layouts import TIMM, TORCHVISION
from flaxnets_resnet.network import Design, build_resnet

RESNET = "arXiv:1512.03385"
WIDE = "arXiv:1605.07146"
RESNEXT = "arXiv:1611.05431"
RESNET_D = "arXiv:1812.01187"
SE_RESNET = "arXiv:1709.01507"

IMAGENET1K_V1 = "torchvision IMAGENET1K_V1"
TABLE_2 = "the paper, table 2"
TABLE_5 = "the paper, table 5"


def _variant(design: Design, *, num_params: int, paper: str, top1: tuple[float, str] | None = None) -> Architecture:
    layouts = TIMM if design.variant_d or design.attention else TORCHVISION
    build = functools.partial(build_resnet, design)
    return Architecture(build=build, num_params=num_params, paper=paper, top1=top1, layouts=layouts)


_basic = functools.partial(Design, BasicBlock)
_bottleneck = functools.partial(Design, Bottleneck)
_wide = functools.partial(Design, Bottleneck, group_width=128)
_resnet_d = functools.partial(Design, Bottleneck, variant_d=True)
_se_basic = functools.partial(Design, BasicBlock, attention=SqueezeExcite)
_se_bottleneck = functools.partial(Design, Bottleneck, attention=SqueezeExcite)

# fmt: off
#                             blocks per stage  parameters at 1000 classes (torchvision; timm for D and SE)
resnet18  = _variant(_basic((2, 2, 2, 2)),       num_params=11_689_512, paper=RESNET, top1=(69.758, IMAGENET1K_V1))
resnet34  = _variant(_basic((3, 4, 6, 3)),       num_params=21_797_672, paper=RESNET, top1=(73.314, IMAGENET1K_V1))
resnet50  = _variant(_bottleneck((3, 4, 6, 3)),  num_params=25_557_032, paper=RESNET, top1=(76.130, IMAGENET1K_V1))
resnet101 = _variant(_bottleneck((3, 4, 23, 3)), num_params=44_549_160, paper=RESNET, top1=(77.374, IMAGENET1K_V1))
resnet152 = _variant(_bottleneck((3, 8, 36, 3)), num_params=60_192_808, paper=RESNET, top1=(78.312, IMAGENET1K_V1))

wide_resnet50_2  = _variant(_wide((3, 4, 6, 3)),  num_params=68_883_240,  paper=WIDE, top1=(78.468, IMAGENET1K_V1))
wide_resnet101_2 = _variant(_wide((3, 4, 23, 3)), num_params=126_886_696, paper=WIDE, top1=(78.848, IMAGENET1K_V1))

_resnext50  = _bottleneck((3, 4, 6, 3),  groups=32, group_width=4)
_resnext101 = _bottleneck((3, 4, 23, 3), groups=32, group_width=8)
resnext50_32x4d  = _variant(_resnext50,  num_params=25_028_904, paper=RESNEXT, top1=(77.618, IMAGENET1K_V1))
resnext101_32x8d = _variant(_resnext101, num_params=88_791_336, paper=RESNEXT, top1=(79.312, IMAGENET1K_V1))

resnet50d = _variant(_resnet_d((3, 4, 6, 3)), num_params=25_576_264, paper=RESNET_D, top1=(77.16, TABLE_5))

se_resnet18  = _variant(_se_basic((2, 2, 2, 2)),       num_params=11_779_624, paper=SE_RESNET)
se_resnet34  = _variant(_se_basic((3, 4, 6, 3)),       num_params=21_960_416, paper=SE_RESNET)
se_resnet50  = _variant(_se_bottleneck((3, 4, 6, 3)),  num_params=28_088_024, paper=SE_RESNET, top1=(76.71, TABLE_2))
se_resnet101 = _variant(_se_bottleneck((3, 4, 23, 3)), num_params=49_326_872, paper=SE_RESNET, top1=(77.62, TABLE_2))
se_resnet152 = _variant(_se_bottleneck((3, 8, 36, 3)), num_params=66_821_848, paper=SE_RESNET, top1=(78.43, TABLE_2))
# fmt: on
