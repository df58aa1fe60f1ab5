"""Which images are broken: found before training; sound ones are remembered by size and time of change."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from flaxnets.data.folder import FileExamples
from flaxnets.data.loading import default_workers
from flaxnets.data.pixels import BrokenImageError, EncodedImage
from flaxnets.data.sources import Source
from flaxnets.errors import DataError, printable

MOST_LISTED = 10
AT_ONCE = 64  # files that a thread takes; all of ImageNet, each a task of its own, would fill gigabytes
MANY = 10_000  # files whose check takes long enough to be announced


def usable(sources: Sequence[Source], on_error: Literal["stop", "skip"]) -> list[Source]:
    """Training and test split as they can be used; only files in folders are looked at, others were when prepared.

    Raises:
      DataError: there are broken files and `on_error` is `stop`, or too little is left.
    """
    return [_usable(source, on_error) if isinstance(source.examples, FileExamples) else source for source in sources]


def broken(source: Source) -> dict[int, str]:
    """What is wrong, by the index of the example; every image is read and decoded, by as many threads as in training.

    Of files, those are passed over that were sound and have not changed. Others are looked at each time: what was wrong
    may have been a permission or a disk.
    """
    examples = source.examples
    if not isinstance(examples, FileExamples):
        return _decode_all(source, range(len(examples)))
    root = os.path.commonpath(examples.files)
    sound = _read_cache(root)
    stamps = [_stamp(file) for file in examples.files]
    unknown = [i for i, file in enumerate(examples.files) if stamps[i] is None or sound.get(file) != stamps[i]]
    if len(unknown) > MANY:
        logging.getLogger(__name__).warning("Checking %s images once; the result is kept.", f"{len(unknown):,}")
    found = _decode_all(source, unknown)
    if len(found) < len(unknown):
        _write_cache(root, sound | {examples.files[i]: stamps[i] for i in unknown if i not in found})
    return found


def name(source: Source, index: int) -> str:
    """What to call an example: its file, or how it calls itself."""
    examples = source.examples
    return examples.files[index] if isinstance(examples, FileExamples) else examples[index]["name"]


def _usable(source: Source, on_error: Literal["stop", "skip"]) -> Source:
    assert isinstance(source.examples, FileExamples)
    problems = broken(source)
    if not problems:
        return source
    count, files, labels = len(source.examples), source.examples.files, source.examples.labels
    if on_error == "stop":
        listed = [f"{printable(files[i])}: {problem}" for i, problem in list(problems.items())[:MOST_LISTED]]
        more = f"; and {len(problems) - MOST_LISTED} more" if len(problems) > MOST_LISTED else ""
        raise DataError(
            f"{len(problems)} of {count:,} images cannot be used ({'; '.join(listed)}{more}). Mend or remove them, or "
            "train without them by --data.on-error skip; `flaxnets check-data` lists all."
        )
    kept = [i for i in range(count) if i not in problems]
    lost = sorted({labels[i] for i in problems} - {labels[i] for i in kept})
    if lost:
        names = ", ".join(printable(source.class_names[label]) for label in lost)
        raise DataError(f"All images of {names} are broken; mend some, or remove the folder.")
    logging.getLogger(__name__).warning("%d of %d images cannot be used and are left out.", len(problems), count)
    return dataclasses.replace(source, examples=source.examples.only(kept))


def _decode_all(source: Source, indices: Sequence[int]) -> dict[int, str]:
    def problems(part: Sequence[int]) -> dict[int, str]:
        return {index: problem for index in part if (problem := _problem(source, index))}

    parts = [indices[first : first + AT_ONCE] for first in range(0, len(indices), AT_ONCE)]
    with ThreadPoolExecutor(default_workers()) as pool:
        return {index: problem for found in pool.map(problems, parts) for index, problem in found.items()}


def _problem(source: Source, index: int) -> str | None:
    """What is wrong with an example. A JPEG is decoded small: every byte is read, few pixels are made."""
    try:
        example = source.examples[index]
        if not 0 <= example["label"] < len(source.class_names):
            return f"its label is {example['label']}, and there are {len(source.class_names)} classes"
        if isinstance(example["image"], bytes):
            EncodedImage(example["image"]).decode(source.channels, shrink=8)
    except OSError as error:
        return error.strerror or str(error)
    except BrokenImageError as error:
        return str(error)
    return None


def _stamp(file: str) -> list[int] | None:
    """Size and time of change; None where the file is gone."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _cache_file(root: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "flaxnets" / "checked"
    return folder / (hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16] + ".json")


def _read_cache(root: str) -> dict[str, list[int] | None]:
    """`{file: stamp}` of sound files; a cache that cannot be read is none."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last where there is no home folder
        sound = json.loads(_cache_file(root).read_text())
        if isinstance(sound, dict):
            return sound
    return {}


def _write_cache(root: str, sound: dict[str, list[int] | None]) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # the next start checks again
        file = _cache_file(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(sound))
        new.replace(file)
