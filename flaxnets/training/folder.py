"""The run folder: which one a run writes, what run.json says of it, and refusing to touch another run's."""

import contextlib
import glob
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from flaxnets.config import Run, settings
from flaxnets.errors import RunFolderError

try:
    import fcntl
except ImportError:  # not on Windows; there, nothing keeps two processes apart
    fcntl = None

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy")


def choose_folder(run: Run) -> Path:
    """The folder that this run may write: a new one, or with `resume` the one that holds it already.

    Raises:
      RunFolderError: the folder holds another run, or this one and `resume` was not said; or there is none to resume.
    """
    kind, _, place = run.data.name.partition(":")
    data = Path(place).stem if kind in ("folder", "idx", "arrays") else run.data.name
    base = run.runs / (run.name or f"{run.arch}-{data}".replace(":", "-").replace("/", "-"))
    if run.name is None:
        taken = _numbered(base)
        if not run.resume:
            return base.with_name(f"{base.name}-{max(taken) + 1}") if taken else base
        newest_first = (taken[number] for number in sorted(taken, reverse=True))
        base = next((folder for folder in newest_first if not _differences(folder, run)), base)
    if run.resume and not (base / "run.json").exists():
        raise RunFolderError(f"There is no run to resume in {base}; start it without --resume.")
    if _is_taken(base):
        differences = _differences(base, run)
        if differences:
            raise RunFolderError(
                f"{base} holds another run: {'; '.join(differences)}. Choose another --name, or give that run's "
                "settings and --resume to continue it."
            )
        if not run.resume:
            raise RunFolderError(f"{base} already holds this run; continue it by --resume, or choose another --name.")
    return base


def create_folder(folder: Path, run: Run, facts: dict[str, Any]) -> None:
    """Make the folder of a new run and its run.json.

    Raises:
      RunFolderError: it cannot be written, or another process has made one there since the folder was chosen.
    """
    record = {
        "settings": settings(run),
        "run": run.model_dump(mode="json"),
        **facts,
        "command": sys.argv,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
    }
    names = {str(label): name for label, name in enumerate(facts["class_names"])}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / "run.json").open("x")
        except FileExistsError as error:
            raise RunFolderError(f"Another process has just begun a run in {folder}; choose another --name.") from error
        with file:
            file.write(json.dumps(record, indent=2) + "\n")
        (folder / "class_indices.json").write_text(json.dumps(names, indent=2) + "\n")
    except OSError as error:
        discard_folder(folder)
        raise RunFolderError(
            f"Cannot write the run folder {folder}: {error.strerror}; choose another place by --runs."
        ) from error


def check_facts(folder: Path, facts: dict[str, Any]) -> None:
    """See that the data of a run that is resumed still has its classes and its number of images.

    Args:
      folder: the run folder.
      facts: `class_names`, `train_count` and `test_count` as they are now.

    Raises:
      RunFolderError: they are not those of run.json.
    """
    record = _record(folder)
    fix = "bring the data back as it was, or start a new run under another --name"
    there, here = record.get("class_names", []), list(facts["class_names"])
    if there != here:
        added, gone = (", ".join(sorted({*a} - {*b})) or "none" for a, b in ((here, there), (there, here)))
        raise RunFolderError(
            f"The data has other classes than the run in {folder} (new: {added}; gone: {gone}); {fix}."
        )
    for name, images in {"train_count": "training", "test_count": "test"}.items():
        if record.get(name, facts[name]) != facts[name]:  # run.json of earlier versions has none
            raise RunFolderError(
                f"The data has {facts[name]:,} {images} images, and had {record[name]:,} for the run in {folder}; "
                f"{fix}."
            )


def statistics_of(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std that the images of a run are normalised by. Raises RunFolderError where run.json is damaged."""
    record = _record(folder)
    try:
        return tuple(record["mean"]), tuple(record["std"])
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{folder / 'run.json'} is damaged; start a new run under another --name.") from error


def lock_folder(folder: Path) -> IO[str]:
    """Keep other processes from training in a folder, until this process ends or closes what is returned.

    Raises:
      RunFolderError: another process does so already.
    """
    file = (folder / "run.json").open()
    if not _lock(file):
        raise RunFolderError(f"Another process is training in {folder}; stop it first, or choose another --name.")
    return file


def is_training(folder: Path) -> bool:
    """Whether a process is training in a folder."""
    with (folder / "run.json").open() as file:
        return not _lock(file)


def _lock(file: IO[str]) -> bool:
    """Lock a file; the system unlocks it when it is closed, at the latest at the end of the process."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def discard_folder(folder: Path) -> None:
    """Take away what `create_folder` made, or the part of it so far, for a run that has not begun; all else stays."""
    with contextlib.suppress(OSError):
        (folder / "run.json").unlink()  # without one, the folder is not a run's
        (folder / "class_indices.json").unlink(missing_ok=True)
        folder.rmdir()


def _numbered(base: Path) -> dict[int, Path]:
    """The folders BASE, BASE-2, BASE-3, ... that hold anything, by their number."""
    found = {1: base}
    for folder in base.parent.glob(f"{glob.escape(base.name)}-*"):
        number = folder.name.removeprefix(f"{base.name}-")
        if number.isdecimal():
            found[int(number)] = folder
    return {number: folder for number, folder in found.items() if _is_taken(folder)}


def _is_taken(folder: Path) -> bool:
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError:
        return False  # creating the folder will say what is wrong


def _record(folder: Path) -> dict[str, Any]:
    """What run.json says; nothing where it cannot be read."""
    try:
        record = json.loads((folder / "run.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _differences(folder: Path, run: Run) -> list[str]:
    """`setting is X there and Y here`, for each setting in which the folder's run differs from this one."""
    there, here = _record(folder).get("settings"), settings(run)
    if not isinstance(there, dict):
        return ["it has no readable run.json"]
    return [
        f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def _commit() -> str | None:
    """The commit of the flaxnets sources, where they are a git checkout."""
    where = Path(__file__).parent
    try:
        done = subprocess.run(["git", "-C", where, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
