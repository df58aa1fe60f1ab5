"""A repository in the layout of the Hugging Face hub: weights, timm's config.json and a model card."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from flaxnets.tools.model_card import model_card

if TYPE_CHECKING:
    from flaxnets.tools.trained import Trained


def add_options(parser: argparse._ArgumentGroup) -> None:
    """Let `flaxnets export` take the options of this format."""
    parser.add_argument(
        "--layout", help="whose names to give the tensors; default: timm's if timm has the network, else its source's"
    )
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="of the weights, in the hub's words, such as apache-2.0; default: unknown",
    )


def files(network: "Trained", arguments: argparse.Namespace) -> dict[str, bytes]:
    """The files of the repository, by name.

    Args:
      network: of a run, with batch norm.
      arguments: with the options of `add_options`.

    Raises:
      WeightsError: the architecture has no such layout.
    """
    import numpy as np
    import safetensors.numpy
    from flax import nnx

    from flaxnets import registry
    from flaxnets.tools.convert import layout_named
    from flaxnets.training.log import read_metrics
    from flaxnets.weights.layouts import slots

    assert network.run
    architecture, name = registry.get(network.arch), network.arch.rpartition(":")[2]
    # Options make another network, and torchvision's are for colour pictures alone.
    loads = {
        label: layout.networks[name]
        for label, layout in architecture.layouts.items()
        if name in layout.networks and not network.options and (label != "torchvision" or network.channels == 3)
    }
    wanted = arguments.layout or ("timm" if "timm" in loads else None)
    label = layout_named(wanted, network.arch, architecture)
    arrays = dict(nnx.to_flat_state(nnx.state(network.model, nnx.Not(nnx.RngState))))
    places = slots(network.model, architecture.layouts.get(label))
    tensors = {slot.name: slot.write(np.asarray(arrays[slot.path][...])) for slot in places}
    config = hub_config(network, loads.get("timm") if label == "timm" else None)
    kernels = {slot.path[0]: slot.name.rpartition(".")[0] for slot in reversed(places) if len(slot.shape) in (2, 4)}
    parts = {"first_conv": "stem", "classifier": "classifier"}  # which a plugin may make without a kernel
    config["pretrained_cfg"] |= {word: kernels[part] for word, part in parts.items() if part in kernels}
    tested = [line for line in read_metrics(network.run.folder) if line["split"] == "test"]
    metrics = next((line for line in tested if line["step"] == network.run.step), {})
    return {
        "model.safetensors": safetensors.numpy.save(tensors, metadata={"format": "pt"}),
        "config.json": _json(config),
        "class_indices.json": _json(dict(enumerate(network.class_names))),
        "README.md": model_card(network, architecture, label, loads.get(label), metrics, arguments.license).encode(
            errors="backslashreplace"  # a folder's name may hold bytes that are no text
        ),
    }


def hub_config(network: "Trained", timm_name: str | None) -> dict[str, Any]:
    """What timm reads of a model on the hub: its network, its classes, and what its pictures have to look like.

    Args:
      network: any.
      timm_name: what timm calls the network; None where it cannot make it.
    """
    view = network.view
    crops = view.crop == "random_resized"
    size = [network.channels, network.image_size, network.image_size]
    classes = len(network.class_names)
    config: dict[str, Any] = {
        "architecture": timm_name or network.arch,
        "num_classes": classes,
        "label_names": list(network.class_names),
        "pretrained_cfg": {
            "input_size": size,
            "interpolation": "bilinear",
            "crop_pct": view.centre_crop if crops else 1.0,
            "crop_mode": "center" if crops else "squash",
            "mean": list(network.mean),
            "std": list(network.std),
            "num_classes": classes,
        },
        "flaxnets": {"arch": network.arch, "options": network.options},
    }
    if timm_name and network.channels != 3:
        config["model_args"] = {"in_chans": network.channels}
    return config


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=2) + "\n").encode()
