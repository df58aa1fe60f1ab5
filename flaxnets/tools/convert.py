"""`flaxnets convert`: a checkpoint in the names of another library, as safetensors."""

import argparse
from pathlib import Path

from flaxnets import models, registry
from flaxnets.errors import WeightsError, did_you_mean
from flaxnets.plugin import Architecture
from flaxnets.tools.options import add_options, read_options
from flaxnets.weights.files import read_weights, write_safetensors
from flaxnets.weights.layouts import OWN, match, slots


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets convert", description=description)
    parser.add_argument(
        "source", metavar="IN", type=Path, help="a .safetensors, .pth or .pt file; its layout is recognised"
    )
    parser.add_argument(
        "target", metavar="OUT", type=Path, help="the .safetensors file to write; it must not exist yet"
    )
    parser.add_argument("--arch", required=True, help="architecture that the weights belong to, see `flaxnets list`")
    parser.add_argument(
        "--layout",
        help="whose names to write: flaxnets, torchvision, timm or another that `flaxnets info NAME` lists; default: "
        "those of the library that the architecture comes from",
    )
    add_options(parser)
    arguments = parser.parse_args(options)
    architecture = registry.get(arguments.arch)
    label = layout_named(arguments.layout, arguments.arch, architecture)
    layout = architecture.layouts.get(label)

    tensors = read_weights(arguments.source)
    taken = read_options(arguments.options, arguments.arch)
    num_classes, in_channels = models.sizes_of(arguments.arch, tensors, **taken)
    model = models.abstract(arguments.arch, num_classes, in_channels, **taken)
    arrays = match(model, tensors, architecture.layouts, arguments.arch)
    written = {slot.name: slot.write(arrays[slot.path]) for slot in slots(model, layout)}
    write_safetensors(arguments.target, written)
    print(
        f"{arguments.target}: {len(written)} tensors of {arguments.arch} in the layout of {label}, {num_classes} "
        f"classes, {in_channels} input channels"
    )
    return 0


def layout_named(label: str | None, arch: str, architecture: Architecture) -> str:
    """The layout that a user wants of an architecture, or else its source's. Raises WeightsError for an unknown one."""
    known = [*architecture.layouts, OWN]
    if label is not None and label not in known:
        raise WeightsError(
            f"{arch} has no layout {label!r}.{did_you_mean(label, known)} Give --layout one of {', '.join(known)}."
        )
    return label or known[0]
