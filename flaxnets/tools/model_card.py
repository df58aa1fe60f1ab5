"""The README of a repository on the Hugging Face hub: what a network is, how good, of which data, how to load it."""

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaxnets.plugin import Architecture
    from flaxnets.tools.trained import Trained

LOADING = {
    "timm": """import timm

model = timm.create_model("local-dir:.", pretrained=True)  # or "hf-hub:OWNER/NAME"
""",
    "torchvision": """import safetensors.torch
import torchvision

model = torchvision.models.{network}(num_classes={classes})
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
""",
    "flaxnets": """import flaxnets

model = flaxnets.create("{arch}", {classes}, {channels}, weights="model.safetensors"{options})
""",
}


def model_card(
    network: "Trained",
    architecture: "Architecture",
    layout: str,
    counterpart: str | None,
    metrics: dict[str, float],
    licence: str,
) -> str:
    """The Markdown of the card, which begins with what the hub reads, as YAML.

    Args:
      network: of a run.
      architecture: its architecture.
      layout: whose names the tensors have.
      counterpart: what that library calls the network; None where it cannot load it.
      metrics: the line of metrics.jsonl of the exported checkpoint; may be empty.
      licence: of the weights.
    """
    assert network.run
    record = network.run.record
    settings = {name: _without_place(name, value) for name, value in record["settings"].items()}
    data, classes = settings["data.name"], len(network.class_names)
    accuracy = metrics.get("ema_accuracy", metrics.get("accuracy"))
    library = layout if counterpart else "flaxnets"
    # JSON is YAML, and quotes whatever names hold.
    head = {
        "license": licence,
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "flaxnets", network.arch],
    }
    if accuracy is not None:
        measured = [{"type": "accuracy", "name": "top-1 accuracy", "value": accuracy}]
        task = {"type": "image-classification"}
        results = [{"task": task, "dataset": {"name": data, "type": data}, "metrics": measured}]
        head["model-index"] = [{"name": network.arch, "results": results}]
    options = "".join(f", {name}={value!r}" for name, value in network.options.items())
    facts = {"arch": network.arch, "classes": classes, "channels": network.channels, "options": options}
    loads = dict.fromkeys((library, "flaxnets"))
    front = "".join(f"{name}: {json.dumps(value)}\n" for name, value in head.items())
    rows = {
        "architecture": f"{network.arch} ({architecture.paper})",
        "data": data,
        "classes": classes,
        "input": f"{network.image_size}x{network.image_size} pixels, {network.channels} channels",
        "mean, standard deviation": f"{_rounded(network.mean)}; {_rounded(network.std)}",
        "checkpoint of step": network.run.step,
        "test accuracy": "not measured" if accuracy is None else f"{accuracy:.2%}",
        "test loss": "not measured" if "loss" not in metrics else f"{metrics.get('ema_loss', metrics['loss']):.4f}",
        "names of the tensors": layout,
        "licence of the weights": licence,
    }
    parts = [
        f"---\n{front}---\n",
        f"# {_text(network.arch)}, trained on {_text(data)}\n",
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {_text(value)} |" for name, value in rows.items())]) + "\n",
        "## Load it\n",
        *(_code("python", LOADING[each].format(network=counterpart, **facts)) for each in loads),
        "## Classes\n",
        _code("json", json.dumps(list(network.class_names)) + "\n"),
        "## Recipe\n",
        f"By flaxnets {record['versions']['flaxnets']}, with these settings:\n",
        _code("json", json.dumps(settings, indent=1) + "\n"),
    ]
    return "\n".join(parts)


def _without_place(name: str, value: Any) -> Any:
    """A setting without the folders in which things lay on the machine that trained."""
    if name == "data.name":
        kind, colon, place = str(value).partition(":")
        return f"{kind}:{Path(place).name}" if colon and kind in ("folder", "idx", "arrays") else value
    return Path(value).name if name in ("weights", "data.dir") and value else value


def _rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _text(value: object) -> str:
    """A name as Markdown that means nothing but itself."""
    escaped = html.escape(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#$~" else letter for letter in escaped)


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}```\n"
