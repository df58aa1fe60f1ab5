"""Where examples come from: one small interface to data sets of every kind, chosen by the name's prefix."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from flaxnets.config import Data
from flaxnets.errors import DataError, printable


class Examples(Protocol):
    """Random access to examples; many threads may read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """`{"image": bytes of an image file, or uint8 pixels [h, w, 1 or 3], "label": int, "name": for messages}`."""
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
      examples: encoded images with their labels.
      class_names: one a label, in the order of the labels.
      channels: 1 for grey images, 3 for colour.
      mirrors: whether an image keeps its label when it is flipped from left to right.
    """

    examples: Examples
    class_names: tuple[str, ...]
    channels: int
    mirrors: bool


def open_sources(data: Data) -> tuple[Source, Source]:
    """The training and the test split of the data set that `data.name` names.

    Raises:
      DataError: there is no such data set or split, or it is not what an image classifier needs.
    """
    kind, _, place = data.name.partition(":")
    place = os.path.expanduser(place)  # which shells do not do after a colon
    if kind == "folder":
        from flaxnets.data.folder import folder_sources

        return folder_sources(place, data.train, data.test, data.holdout)
    if kind in ("idx", "arrays"):
        _require_parts_as_they_are(data)
    if kind == "idx":
        from flaxnets.data.idx import idx_sources

        return idx_sources(place)
    if kind == "arrays":
        from flaxnets.data.arrays import array_sources

        return array_sources(place, data.holdout)
    from flaxnets.data.tfds_source import tfds_sources

    train, test = tfds_sources(data.name, [data.train, data.test], data.dir)
    return train, test


def _require_parts_as_they_are(data: Data) -> None:
    """Refuse another split than the one that the files have: it would be trained on something else than was asked."""
    for part in ("train", "test"):
        if getattr(data, part) != part:
            raise DataError(
                f"{data.name!r} has one part to train on and one to test on, and no split "
                f"{getattr(data, part)!r}; leave --data.{part} at {part!r}."
            )


def hold_out(
    labels: Sequence[int] | np.ndarray, names: Sequence[bytes], fraction: float
) -> tuple[list[int], list[int]]:
    """Split examples in two, each class alike: indices to train on, and the held-out `fraction` to test on.

    Which examples of a class are held out depends on their names alone, so that it does not change with the order, and
    hardly when others are added. Of each class that has two examples, at least one comes to each side.
    """
    labels = np.asarray(labels)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: hashlib.sha256(names[i]).digest())
        if len(members) > 1:
            held[members[: max(1, min(round(fraction * len(members)), len(members) - 1))]] = True
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def split_by_class(
    where: object, labels: Sequence[int] | np.ndarray, names: Sequence[bytes], fraction: float
) -> tuple[list[int], list[int]]:
    """`hold_out` for a data set that is `where`. Raises DataError where nothing can be held out."""
    train, test = hold_out(labels, names, fraction)
    if not test:
        raise DataError(f"Each class of {printable(where)} has one image; add some to test on.")
    return train, test
