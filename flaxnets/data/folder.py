"""`folder:PATH`: image files in a folder a class."""

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxnets.data.sources import Source, split_by_class
from flaxnets.errors import DataError, did_you_mean, printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
TEST_NAMES = {"test": ("test", "val", "validation", "valid")}  # what the default may be called
PART_NAMES = {"train", "training", "testing", *TEST_NAMES["test"]}  # in any case; classes are hardly called so


@dataclasses.dataclass(frozen=True)
class FileExamples:
    """Image files, read when they are wanted, and their labels."""

    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self.files[index]
        with open(file, "rb", buffering=0) as opened:
            image = opened.read()
        return {"image": image, "label": self.labels[index], "name": printable(file)}

    def only(self, kept: list[int]) -> "FileExamples":
        """Some of them, by index."""
        return FileExamples(tuple(self.files[i] for i in kept), tuple(self.labels[i] for i in kept))


def folder_sources(path: str, train: str, test: str, holdout: float) -> tuple[Source, Source]:
    """Training and test split of a folder.

    Args:
      path: with `train/CLASS/` and a folder to test on, or with `CLASS/` alone. Files in folders within a class
        belong to it; hidden ones, and those that are no images by their names, are passed over.
      train, test: names of the two folders; where `test` does not exist, `val`, `validation` or `valid` serves.
      holdout: share of each class to test on, where there is no folder for that.

    Raises:
      DataError: the folders cannot be read, or are not what an image classifier needs.
    """
    root = Path(path)
    splits = _folders(root)
    train_root = root / train if train in splits else root
    if train != "train" and train not in splits:
        near = did_you_mean(train, splits)
        raise DataError(f"There is no folder {train!r} in {printable(root)}.{near} Choose one by --data.train.")
    test_name = next((name for name in TEST_NAMES.get(test, (test,)) if name in splits), None)
    if train_root == root or (test == "test" and not test_name):
        # Classes have their images in them; a part has a folder a class.
        missed = [name for name in splits if name.lower() in PART_NAMES and name != train and _folders(root / name)]
        if missed:
            raise DataError(
                f"{printable(root)} holds {', '.join(missed)}, by name and content no classes but parts to train or "
                "test on; choose them by --data.train and --data.test, or rename them."
            )
    class_names = _folders(train_root)
    if len(class_names) < 2:
        raise DataError(
            f"{printable(train_root)} holds {len(class_names)} folders of images; a classifier needs two classes or "
            "more, each a folder: give the folder that holds them after folder:."
        )
    files, labels = _files_of(train_root, class_names)
    present = set(labels)
    empty = [printable(name) for label, name in enumerate(class_names) if label not in present]
    if empty:
        raise DataError(
            f"In {printable(train_root)}, there is no image in {', '.join(empty)}; images end in "
            f"{', '.join(EXTENSIONS)}. Add some, or remove the folder."
        )
    if train_root != root and test_name:
        parts = [(files, labels), _files_of(root / test_name, class_names)]
        if not parts[1][0]:
            raise DataError(f"There is no image in {printable(root / test_name)}; choose another by --data.test.")
    elif test == "test":
        names = [os.fsencode(os.path.relpath(file, train_root)) for file in files]
        indices = split_by_class(root, labels, names, holdout)
        parts = [([files[i] for i in part], [labels[i] for i in part]) for part in indices]
    else:
        near = did_you_mean(test, splits)
        raise DataError(f"There is no folder {test!r} in {printable(root)}.{near} Choose one by --data.test.")
    train_source, test_source = (
        Source(FileExamples(tuple(files), tuple(labels)), tuple(class_names), channels=3, mirrors=True)
        for files, labels in parts
    )
    return train_source, test_source


def _files_of(root: Path, class_names: list[str]) -> tuple[list[str], list[int]]:
    """Image files of the classes in a folder, and their labels."""
    unknown = sorted(set(_folders(root)) - set(class_names))
    if unknown:
        raise DataError(
            f"{printable(root)} has classes that are not there to train on: {printable(', '.join(unknown[:5]))}. "
            "Remove them, or name folders alike in both."
        )
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(images_in(root / name, root), key=os.fsencode) if (root / name).is_dir() else []
        files += found
        labels += [label] * len(found)
    return files, labels


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted by their bytes, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"Cannot read the folder {printable(folder)}: {error.strerror}; give one that you may read after folder:."
        ) from error
    return sorted(names, key=os.fsencode)


def images_in(folder: Path, outside: Path | None = None) -> Iterator[str]:
    """Image files in a folder and those within it, by their names, without hidden ones.

    Links are followed, to no folder twice: they may run in circles; nor to `outside`, in which the folder is one of
    several. Raises DataError where a folder cannot be read.
    """
    waiting, seen = [folder], {_identity(outside)} if outside else set()
    while waiting:
        here = waiting.pop()
        if _identity(here) in seen:
            continue
        seen.add(_identity(here))
        waiting += [here / name for name in reversed(_folders(here))]
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".") and _is_file(entry):
                    yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False  # a link to itself


def _is_file(entry: os.DirEntry) -> bool:
    """Whether an entry is a file, or a link to one or to nothing: that is broken. Reading a pipe would never end."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
