"""Names of the tensors in the code of CBAM's authors, github.com/Jongchan/attention-module."""

from typing import Any

from flaxnets_resnet.layouts import block_name, pytorch_name

from flaxnets.plugin import Layout

ATTENTION = {
    ("channel", "reduce"): "ChannelGate.mlp.1",
    ("channel", "expand"): "ChannelGate.mlp.3",
    ("spatial", "mix"): "SpatialGate.spatial.conv",  # without a norm
    ("spatial", "mix", "convolution"): "SpatialGate.spatial.conv",
    ("spatial", "mix", "norm"): "SpatialGate.spatial.bn",
}


def _name(path: tuple[str, ...], model: Any) -> str:
    match path:
        case ("stages", stage, block, "attention", *layer):
            return f"{block_name(stage, block)}.cbam.{ATTENTION[tuple(layer)]}"
    return pytorch_name(path, model)


LAYOUTS = {"attention-module": Layout(_name)}
