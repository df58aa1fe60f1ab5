"""Names of the ResNet family's tensors in PyTorch: torchvision and timm call alike what both have."""

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


PYTORCH = Layout(pytorch_name, pointwise=frozenset(SQUEEZE_EXCITE.values()))
TORCHVISION = {"torchvision": PYTORCH, "timm": PYTORCH}
TIMM = {"timm": PYTORCH}  # what torchvision does not have
