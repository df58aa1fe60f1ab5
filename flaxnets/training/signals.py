"""Ctrl-C and SIGTERM as a wish to stop after the present step."""

import signal
from types import FrameType


class StopRequest:
    """While the `with` block runs, the first SIGINT or SIGTERM sets `signal`; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 128 + its number; 0 without one."""
        return 128 + self.signal if self.signal else 0
