"""Checksums of arrays, so that bits that changed on a disk are never taken for what was trained."""

import zlib
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of the bytes of every array of a tree, by its path, such as `params/stem/kernel`.

    Reads 2 to 4 GB a second: the 200 MB of a ResNet-50 with momentum take up to a tenth of a second.

    >>> checksums({"a": {"b": np.zeros(2, np.float32)}})
    {'a/b': 1696784233}
    """
    return {
        name: zlib.crc32(np.asarray(array).reshape(-1).view(np.uint8).data) for name, array in by_path(tree).items()
    }


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
