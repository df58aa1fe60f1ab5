"""Ctrl-C and SIGTERM: before training they end the program at once, then they are a wish to stop after the step."""

import os
import signal
import sys
import threading
from collections.abc import Callable


class StopRequest:
    """While the `with` block runs, watches for SIGINT and SIGTERM.

    Until `training_starts`, a signal ends the process at once. After it, the first one is only noted in `signal`, for
    the loop to ask, and a second one ends the process at once.

    Python calls signal handlers between two steps of the main thread, which may be in the compiler for minutes. So the
    signals are written to a pipe, which Python does at once, and a thread of their own acts on them.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.on_early_exit: Callable[[], object] = lambda: None  # undoes what was done before training
        self.undisturbed = threading.Lock()  # held where a signal has to wait: what it undoes must be whole
        self._training = False

    def __enter__(self) -> "StopRequest":
        end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pipe_before = signal.set_wakeup_fd(self._pipe)
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._watch, args=(end,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._pipe_before)
        os.close(self._pipe)  # ends the thread

    def training_starts(self) -> None:
        """From here on there is something to save."""
        self._training = True

    def requested(self, meeting: bool = True) -> bool:
        """Whether to stop. Several processes have to agree, and can only at a `meeting`, where all of them ask."""
        from flaxnets.training import processes  # and with it jax, which is not there yet when the signals are taken

        if processes.alone():
            return self.signal is not None
        if meeting and processes.any_of(self.signal is not None):
            self.signal = self.signal or signal.SIGTERM  # it came to another process
            return True
        return False

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 128 + its number; 0 without one."""
        return 128 + self.signal if self.signal else 0

    def _watch(self, end: int) -> None:
        with open(end, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if self._training and self.signal is None:
                    self.signal = signal.Signals(number[0])
                else:
                    self._leave(signal.Signals(number[0]))

    def _leave(self, number: signal.Signals) -> None:
        if self._training:
            said = f"Stopped at once by a second signal, {number.name}; --resume continues from the last saved step."
        else:
            said = "Stopped before the first step; nothing was trained."
            self.undisturbed.acquire()  # and never given back
            self.on_early_exit()
        cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # the progress bar hides it
        os.write(sys.stderr.fileno(), f"{cursor}\n{said}\n".encode())
        os._exit(128 + number)
