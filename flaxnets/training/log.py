"""Metrics on disk: metrics.jsonl, one line a measurement, and the same as TensorBoard events."""

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends to a run folder's metrics.jsonl and tensorboard/.

    Args:
      folder: the run folder.
      start: step from which the run continues; what an interrupted run wrote after it is dropped, because the
        continued run will write it again.
    """

    def __init__(self, folder: Path, start: int):
        file = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= start]
        temporary = file.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, file)
        self._lines = file.open("a", buffering=1)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log metrics of the `train` or `test` split after a step."""
        self.write_line({"step": step, "split": split, **metrics})
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def write_line(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl alone: JSON values, `step` and `split` among them."""
        self._lines.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Write out what is buffered."""
        self._lines.close()
        self._events.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without a last one that a kill cut short."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
