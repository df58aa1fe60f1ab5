"""What a run's checkpoints hold, read apart from training."""

import json
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from flaxnets.weights.packing import unpack


def final_state(folder: Path) -> tuple[int, dict[str, Any]]:
    """The newest step, and its arrays by path, such as `params/stem/kernel`."""
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    return step, state_of(folder, step)


def state_of(folder: Path, step: int) -> dict[str, Any]:
    """A step's arrays, likewise."""
    checkpoint = folder.absolute() / "checkpoints" / str(step)
    layout = json.loads((checkpoint / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]["layout"]
    return unpack(ocp.StandardCheckpointer().restore(checkpoint / "default"), layout)
