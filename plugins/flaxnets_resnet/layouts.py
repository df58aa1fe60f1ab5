"""Names of the ResNet family's tensors in PyTorch: torchvision and timm call alike what both have."""

import dataclasses
from typing import Any

from flaxnets.plugin import Layout

CONVOLUTIONS = {"first": 1, "second": 2, "reduce": 1, "spatial": 2, "expand": 3}
SQUEEZE_EXCITE = {"reduce": "fc1", "expand": "fc2"}


def pytorch_name(path: tuple[str, ...], model: Any) -> str:
    """`layer1.0.conv2` for the path of a block's second convolution."""
    is_variant_d = len(model.stem.layers) > 2
    match path:
        case ("stem", "layers", number, part) if is_variant_d:
            # conv1 is convolution, norm, ReLU, convolution, norm, ReLU, convolution; the third norm is outside.
            position = 3 * int(number) + (part == "norm")
            return "bn1" if position == 7 else f"conv1.{position}"
        case ("stem", "layers", _, part):
            return "conv1" if part == "convolution" else "bn1"
        case ("stages", stage, block, "shortcut", part):
            # In the D variant the pooling comes first, even where it does nothing.
            return f"{block_name(stage, block)}.downsample.{is_variant_d + (part == 'norm')}"
        case ("stages", stage, block, "attention", "reduce" | "expand" as layer):
            return f"{block_name(stage, block)}.se.{SQUEEZE_EXCITE[layer]}"
        case ("stages", stage, block, unit, part):
            return f"{block_name(stage, block)}.{'conv' if part == 'convolution' else 'bn'}{CONVOLUTIONS[unit]}"
        case ("classifier",):
            return "fc"
    return ".".join(path)


def block_name(stage: str, block: str) -> str:
    """`layer1.0` for the first block of the first stage."""
    return f"layer{int(stage) + 1}.{block}"


BOTH = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d"),
)
PYTORCH = Layout(pytorch_name, pointwise=frozenset(SQUEEZE_EXCITE.values()), networks={name: name for name in BOTH})
SE_NETWORKS = {f"se_resnet{depth}": f"seresnet{depth}" for depth in (18, 34, 50, 101, 152)}
TORCHVISION = {"torchvision": PYTORCH, "timm": PYTORCH}
TIMM = {
    "timm": dataclasses.replace(PYTORCH, networks={"resnet50d": "resnet50d", **SE_NETWORKS})
}  # torchvision has none
