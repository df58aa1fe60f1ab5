"""What a person sees of a run: a progress bar in a terminal, plain lines elsewhere."""

import logging
import math
import time

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Display:
    """Progress, a line an evaluation, and a closing table, on standard output.

    Args:
      total_steps: length of the run.
      started: `time.perf_counter()` when the program started.
    """

    def __init__(self, total_steps: int, started: float):
        self._started = started
        self._console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total_steps, status="preparing the first step")

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, soft_wrap=not self._console.is_terminal, markup=False)

    def advance(self, step: int) -> None:
        """Steps done so far."""
        self._progress.update(self._task, completed=step)

    def first_step(self, step: int) -> None:
        """The first step of this process is done."""
        self.say(f"first step ({step}) after {time.perf_counter() - self._started:.1f} s")

    def training(self, metrics: dict[str, float]) -> None:
        """Newest training metrics, in the bar."""
        speed = f"{metrics['images_per_second']:.0f} images/s  data wait {metrics['data_wait']:.0%}"
        loss, accuracy = (metrics.get(name, math.nan) for name in ("loss", "accuracy"))  # none if all were skipped
        skipped = f"  skipped {metrics['skipped']:.0f}" if metrics["skipped"] else ""
        status = f"loss {loss:.3f}  accuracy {accuracy:.1%}  rate {metrics['learning_rate']:.2g}{skipped}  {speed}"
        self._progress.update(self._task, status=status)

    def evaluated(self, step: int, epoch: float, metrics: dict[str, float], train: dict[str, float]) -> None:
        """A line an evaluation."""
        average = f"  EMA {metrics['ema_accuracy']:.2%}" if "ema_accuracy" in metrics else ""
        self.say(
            f"epoch {epoch:5.1f}  step {step:5d}  loss {train.get('loss', math.nan):.3f}  "
            f"test loss {metrics['loss']:.3f}  test accuracy {metrics['accuracy']:.2%}{average}"
        )

    def summary(self, rows: dict[str, str]) -> None:
        """The closing table."""
        table = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            table.add_row(name, value)
        self._progress.stop()
        self._console.print(table, markup=False, soft_wrap=not self._console.is_terminal)


def show_warnings() -> None:
    """Let warnings of flaxnets reach standard error as one line each; hush the libraries' own chatter."""
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    logging.getLogger("flaxnets").handlers = [handler]
    logging.getLogger("absl").setLevel(logging.ERROR)
