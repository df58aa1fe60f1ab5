"""Metrics on disk: metrics.jsonl, one line a measurement, and the same as TensorBoard events."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flaxnets.errors import RunFolderError
from flaxnets.training.tensorboard import Events

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends to a run folder's metrics.jsonl and tensorboard/.

    A disk that is full stops no run: there is a warning, and the lines of metrics.jsonl that could not be written are
    kept until they can. What TensorBoard misses meanwhile stays missing.

    Args:
      folder: the run folder.
      start: step from which the run continues; what an interrupted run wrote after it is dropped, because the
        continued run will write it again.
      writes: whether to write anything; of several processes one does.

    Raises:
      RunFolderError: nothing can be written there.
    """

    def __init__(self, folder: Path, start: int, *, writes: bool = True):
        file = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= start]
        self._newest = {line["split"]: line for line in kept}
        self._waiting = ""  # lines that are not yet in the file
        self._warned = False
        self._writes = writes
        if not writes:
            return
        text = "".join(json.dumps(line) + "\n" for line in kept)
        try:
            if not file.exists() or file.read_bytes() != text.encode():
                _replace(file, text)
            self._lines = file.open("ab", buffering=0)
            self._events = Events(folder / "tensorboard", start)
        except OSError as error:
            raise RunFolderError(
                f"Cannot write metrics to {folder} ({error.strerror}); mend that, and continue by --resume."
            ) from error

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log metrics of the `train` or `test` split after a step."""
        self._newest[split] = {"step": step, "split": split, **metrics}
        self.write_line(self._newest[split])
        if not self._writes:
            return
        with self._borne():
            self._events.scalars(step, {f"{split}/{name}": value for name, value in metrics.items()})

    def write_line(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl alone: JSON values, `step` and `split` among them."""
        if not self._writes:
            return
        self._waiting += json.dumps(line) + "\n"
        with self._borne():
            self._write_lines()

    def describe(self, settings: dict[str, Any], images: np.ndarray) -> None:
        """Show TensorBoard what is trained: settings, and images uint8 [n, h, w, c] that it is trained on."""
        if not self._writes:
            return
        with self._borne():
            self._events.configuration(settings)
            self._events.images("images", images)

    def newest(self, split: str) -> dict[str, Any]:
        """The newest line of a split; empty where there is none."""
        return self._newest.get(split, {})

    def close(self) -> None:
        """Write out what is waiting. Raises RunFolderError where that is impossible."""
        if not self._writes:
            return
        self._events.close()
        try:
            self._write_lines()
        except OSError as error:
            raise RunFolderError(
                f"The last metrics could not be written to {self._lines.name} ({error.strerror}); mend that, and "
                "continue by --resume."
            ) from error
        finally:
            self._lines.close()

    @contextlib.contextmanager
    def _borne(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                logger.warning("Cannot write metrics: %s. Training goes on and tries again.", error.strerror)
            self._warned = True

    def _write_lines(self) -> None:
        """All of the waiting lines, or none."""
        text, end = self._waiting.encode(), os.fstat(self._lines.fileno()).st_size
        try:
            while text:
                text = text[self._lines.write(text) :]
        except OSError:
            self._lines.truncate(end)
            raise
        self._waiting = ""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; one that a kill cut short, or that was damaged since, is left out."""
    try:
        lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    measured = [line for line in map(_measured, lines) if line]
    if len(measured) < len(lines):
        logger.warning("%s is damaged; lines left out: %d.", folder / "metrics.jsonl", len(lines) - len(measured))
    return measured


def _measured(line: bytes) -> dict[str, Any] | None:
    """What a line says, or None for one that was not written so."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not (isinstance(found, dict) and isinstance(found.get("step"), int) and isinstance(found.get("split"), str)):
        return None
    return found if found["split"] != "test" or isinstance(found.get("accuracy"), float) else None


def _replace(file: Path, text: str) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
