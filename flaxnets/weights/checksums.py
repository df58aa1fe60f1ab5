"""Checksums of arrays, so that bits that changed on a disk are never taken for what was trained."""

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of every array of a tree, by its path, such as `params/stem/kernel`.

    A core reads 2 to 4 GB a second, and all of them take part: training waits.

    >>> checksums({"a": {"b": np.zeros(2, np.float32)}})
    {'a/b': 1696784233}
    """
    arrays = by_path(tree)
    with ThreadPoolExecutor() as pool:
        return dict(zip(arrays, pool.map(_checksum, arrays.values()), strict=True))


def verify(tree: Any, saved: Mapping[str, int]) -> None:
    """Raise ValueError where an array of a tree is not the one whose checksum is among `saved`, by its path."""
    if not checksums(tree).items() <= saved.items():
        raise ValueError("its arrays are not those that were saved, by their checksums")


def _checksum(array: Any) -> int:
    return zlib.crc32(np.asarray(array).reshape(-1).view(np.uint8).data)


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
