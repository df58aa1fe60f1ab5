"""Images that are arrays already: `arrays:FILE.npz`, and what every source of pixels shares."""

import dataclasses
from typing import Any

import numpy as np

from flaxnets.data.sources import Source, split_by_class
from flaxnets.errors import DataError


@dataclasses.dataclass(frozen=True)
class ArrayExamples:
    """Pixels [n, h, w, c], c = 1 or 3, and labels [n], in memory; `where` they are from."""

    images: np.ndarray
    labels: np.ndarray
    where: str

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = f"example {index} of {self.where}"
        return {"image": self.images[index], "label": int(self.labels[index]), "name": name}


def array_sources(file: str, holdout: float) -> tuple[Source, Source]:
    """Training and test split of an .npz file.

    Args:
      file: with `images`, uint8 [n, h, w] or [n, h, w, c], c = 1 or 3; `labels`, integers [n] from 0 on; and maybe
        `class_names`, strings, one a label.
      holdout: share of each class to test on.

    Raises:
      DataError: the file cannot be read or holds something else.
    """
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            held = {name: np.asarray(arrays[name]) for name in ("images", "labels", "class_names") if name in arrays}
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror or error}; give an .npz file after arrays:.") from error
    except MemoryError as error:
        raise DataError(f"{file} is damaged or larger than the memory; write it anew, with fewer images.") from error
    except Exception as error:  # of damaged bytes, numpy, zipfile and zlib raise what they come upon
        raise DataError(f"{file} is no .npz file of plain arrays; write it by numpy.savez.") from error
    if not {"images", "labels"} <= held.keys():
        raise DataError(f"{file} lacks images or labels; write it by numpy.savez(file, images=..., labels=...).")
    images, labels = checked(held["images"], held["labels"], file)
    most = int(labels.max())
    if "class_names" not in held and most >= len(labels):
        raise DataError(
            f"{file} has the label {most} and {len(labels)} images; number the classes from 0 on, without gaps."
        )
    names = held.get("class_names", np.arange(most + 1))
    if names.ndim != 1:
        raise DataError(
            f"The class_names of {file} are {names.dtype} {list(names.shape)}; they have to be strings [classes]."
        )
    if most >= len(names):
        raise DataError(f"{file} has the label {most} and {len(names)} class names; give a name to each label.")
    parts = split_by_class(file, labels, [str(index).encode() for index in range(len(labels))], holdout)
    class_names = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)
    train, test = (
        Source(
            ArrayExamples(images[part], labels[part], f"{file}, {split}"), class_names, images.shape[3], mirrors=False
        )
        for split, part in zip(("train", "held out"), parts, strict=True)
    )
    return train, test


def checked(images: np.ndarray, labels: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as [n, h, w, c] and labels [n]. Raises DataError where they are not what a classifier can learn from."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"The images of {where} are {images.dtype} {list(images.shape)}; they have to be uint8 [n, h, w] or "
            "[n, h, w, c] with c = 1 or 3."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(
            f"The labels of {where} are {labels.dtype} {list(labels.shape)}; they have to be integers "
            f"[{len(images)}], one an image."
        )
    if labels.min() < 0:
        raise DataError(f"{where} has the label {labels.min()}; labels have to count from 0 on.")
    if (labels == labels[0]).all():
        raise DataError(f"All labels of {where} are {labels[0]}; a classifier needs images of two classes or more.")
    return images, labels
