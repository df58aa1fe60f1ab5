"""Where tools write: files and folders that were not there before, and progress on standard error."""

import os
import tempfile
from collections.abc import Callable
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
    if not os.access(path.absolute().parent, os.W_OK):
        raise ConfigError(f"Cannot write {path}: you may not write in {path.absolute().parent}; choose another place.")


def write_new(path: Path, content: bytes) -> None:
    """Write a file that was not there before. Raises ConfigError where it is there or cannot be written."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already and is left as it is; choose another name.") from error
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}; choose another place.") from error


def write_folder(folder: Path, files: dict[str, bytes], check: Callable[[Path], None] = lambda _: None) -> None:
    """Write a new folder with all files in it, or nothing; `check` may refuse it before it is in its place.

    Raises:
      ConfigError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}-") as place:
            whole = Path(place) / "whole"
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            check(whole)
            os.rename(whole, folder)  # refuses to replace a folder that is not empty
    except OSError as error:
        raise ConfigError(f"Cannot write {folder}: {error.strerror}; choose another place by --out FOLDER.") from error
