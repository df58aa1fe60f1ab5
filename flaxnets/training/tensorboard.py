"""TensorBoard's events: curves, the configuration and sample images."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

event_proto: Any = event_pb2  # protobuf makes its classes at run time, unseen by type checkers
FLUSH_SECONDS = 10


class Events:
    """Event files in a folder. Each method may raise OSError; after that a new file is begun.

    They are written where they arise: tensorboardX's own writer has a thread, and with it a full disk would block the
    training for ever. A new file, because TensorBoard reads none beyond a torn record.

    Args:
      folder: made if it does not exist.
      start: step from which a run continues; TensorBoard drops what an interrupted run logged after it.
    """

    def __init__(self, folder: Path, start: int):
        self._folder = folder
        self._start = start
        self._flush_at = 0.0
        self._writer: EventsWriter | None = None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of each curve."""
        self._write(step, *(summary.scalar(name, value) for name, value in values.items()))

    def configuration(self, settings: dict[str, Any]) -> None:
        """A table of settings."""
        rows = (f"| {name} | {value} |" for name, value in settings.items())
        self._write(0, summary.text("configuration", "\n".join(["| setting | value |", "|---|---|", *rows])))

    def images(self, name: str, images: np.ndarray) -> None:
        """Images uint8 [n, h, w, c] side by side."""
        self._write(0, summary.image(name, np.concatenate(list(images), axis=1), dataformats="HWC"))

    def close(self) -> None:
        """Write out what is waiting."""
        writer, self._writer = self._writer, None
        if writer:
            writer._py_recordio_writer.close()  # its own `close` leaves the file open where the disk is full

    def _write(self, step: int, *values: Any) -> None:
        try:
            self._writer = self._writer or self._open()
            for value in values:
                self._writer.write_event(event_proto.Event(wall_time=time.time(), step=step, summary=value))
            if time.monotonic() > self._flush_at:
                self._writer.flush()
                self._flush_at = time.monotonic() + FLUSH_SECONDS
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def _open(self) -> EventsWriter:
        self._folder.mkdir(exist_ok=True)
        writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        if self._start:
            restarted = event_proto.SessionLog(status=event_proto.SessionLog.SessionStatus.Value("START"))
            writer.write_event(event_proto.Event(wall_time=time.time(), step=self._start + 1, session_log=restarted))
        return writer
