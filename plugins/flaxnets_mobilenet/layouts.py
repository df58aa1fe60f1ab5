"""Names of the MobileNets' tensors in torchvision and timm."""

from typing import Any

from flaxnets.plugin import Layout

# The layers of an inverted residual, in order; not every block has all.
LAYERS = ("expand", "depthwise", "attention", "project")
PARTS = ("convolution", "norm")

# timm's names for a block's convolutions and norms; it depends on whether the block expands.
EXPANDING = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
SEPARABLE = {"depthwise": ("conv_dw", "bn1"), "pointwise": ("conv_pw", "bn2"), "project": ("conv_pw", "bn2")}


def _torchvision_v2(path: tuple[str, ...], model: Any) -> str:
    match path:
        case ("stages", stage, block, layer, part):
            position = _position(model, stage, block, layer)
            prefix = f"features.{_number(model, int(stage), int(block))}.conv"
            if layer == "project":  # which torchvision does not wrap, as no activation follows it
                return f"{prefix}.{position + PARTS.index(part)}"
            return f"{prefix}.{position}.{PARTS.index(part)}"
        case ("classifier",):
            return "classifier.1"
    return _torchvision_ends(path, model)


def _torchvision_v3(path: tuple[str, ...], model: Any) -> str:
    match path:
        case ("stages", stage, block, layer, part):
            names = {"convolution": "0", "norm": "1", "reduce": "fc1", "expand": "fc2"}
            number, position = _number(model, int(stage), int(block)), _position(model, stage, block, layer)
            return f"features.{number}.block.{position}.{names[part]}"
        case ("head", "hidden"):
            return "classifier.0"
        case ("classifier",):
            return "classifier.3"
    return _torchvision_ends(path, model)


def _torchvision_ends(path: tuple[str, ...], model: Any) -> str:
    match path:
        case ("stem", part):
            return f"features.0.{PARTS.index(part)}"
        case ("head", "expand", part):
            return f"features.{_number(model, len(model.stages), 0)}.{PARTS.index(part)}"
    return ".".join(path)


def _timm(path: tuple[str, ...], model: Any) -> str:
    match path:
        case ("stem", part):
            return ("conv_stem", "bn1")[PARTS.index(part)]
        case ("stages", stage, block, "attention", layer):
            return f"blocks.{stage}.{block}.se.conv_{layer}"
        case ("stages", stage, block, layer, part):
            expands = getattr(model.stages[int(stage)][int(block)], "expand", None) is not None
            names = EXPANDING if expands else SEPARABLE
            return f"blocks.{stage}.{block}.{names[layer][PARTS.index(part)]}"
        case ("head", "expand", part) if model.head.hidden:
            return f"blocks.{len(model.stages)}.0.{('conv', 'bn1')[PARTS.index(part)]}"
        case ("head", "expand", part):
            return ("conv_head", "bn2")[PARTS.index(part)]
        case ("head", "hidden"):
            return "conv_head"
    return ".".join(path)


def _number(model: Any, stage: int, block: int) -> int:
    """Position of a block among all; torchvision counts the stem as the first."""
    return 1 + sum(len(blocks) for blocks in list(model.stages)[:stage]) + block


def _position(model: Any, stage: str, block: str, layer: str) -> int:
    """Position of a layer among those that its block has."""
    layers = [name for name in LAYERS if getattr(model.stages[int(stage)][int(block)], name) is not None]
    return layers.index(layer)


TIMM_NETWORKS = {
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    **{f"mobilenet_v2_{width}": f"mobilenetv2_{width}" for width in ("035", "050", "075", "140")},
    # Its networks of full width have another epsilon in batch norm than torchvision's, after which ours are made.
    **{f"mobilenet_v3_{size}_075": f"mobilenetv3_{size}_075" for size in ("large", "small")},
    **{f"mobilenet_v3_{size}_minimal": f"tf_mobilenetv3_{size}_minimal_100" for size in ("large", "small")},
}
TORCHVISION_NETWORKS = {name: name for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")}
TIMM = Layout(_timm, pointwise=frozenset({"conv_reduce", "conv_expand", "conv_head"}), networks=TIMM_NETWORKS)
_V2 = Layout(_torchvision_v2, networks=TORCHVISION_NETWORKS)
_V3 = Layout(_torchvision_v3, pointwise=frozenset({"fc1", "fc2"}), networks=TORCHVISION_NETWORKS)
V1 = {"timm": TIMM}
# The layout of an architecture's source stands first.
TORCHVISION_V2 = {"torchvision": _V2, "timm": TIMM}
TORCHVISION_V3 = {"torchvision": _V3, "timm": TIMM}
TIMM_V2 = dict(reversed(TORCHVISION_V2.items()))
TIMM_V3 = dict(reversed(TORCHVISION_V3.items()))
