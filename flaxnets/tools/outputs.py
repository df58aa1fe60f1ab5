"""Where tools write: files and folders that were not there before, and progress on standard error."""

import os
from pathlib import Path

from flaxnets.errors import ConfigError


class Progress:
    """A progress bar on standard error, where that is a terminal.

    Args:
      what: is being done.
      total: how often `advance` will be called; None if that is not known.
      hidden: show nothing, as where the results themselves go to the terminal.
    """

    def __init__(self, what: str, total: int | None, *, hidden: bool = False):
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        columns = (progress.TextColumn(what), progress.BarColumn(), progress.MofNCompleteColumn())
        self._bar = progress.Progress(
            *columns,
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)


def check_new(path: Path) -> None:
    """Refuse, before any work is done, to write where something is. Raises ConfigError."""
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists already and is left as it is; choose another name.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"Cannot write {path}: there is no folder {path.parent}; make it, or choose another place.")


def write_new(path: Path, content: bytes) -> None:
    """Write a file that was not there before. Raises ConfigError where it is there or cannot be written."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already and is left as it is; choose another name.") from error
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}; choose another place.") from error
