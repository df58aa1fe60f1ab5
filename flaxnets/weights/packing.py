"""A tree of arrays as a few long vectors, which is how checkpoints hold it: storage takes time for each array.

Part by part (`params`, `batch_stats`, ...), the arrays of one type stand in one vector, in the order of their paths.
"""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxnets.weights.checksums import by_path

FORMAT = 3  # of a state in a checkpoint; another number is another layout, which this version cannot read
Vectors = dict[str, dict[str, Any]]  # by part and type
Layout = list[list[Any]]  # path, type and shape of each array, in their order


def layout(tree: Any) -> Layout:
    """What `unpack` has to know.

    >>> layout({"params": {"bias": jnp.zeros(3)}, "step": jnp.int32(7)})
    [['params/bias', 'float32', [3]], ['step', 'int32', []]]
    """
    return [[path, array.dtype.name, list(array.shape)] for path, array in by_path(tree).items()]


def pack(tree: Any) -> Vectors:
    """The arrays of a tree as vectors.

    >>> pack({"params": {"bias": jnp.zeros(3), "kernel": jnp.ones((1, 2))}, "step": jnp.int32(7)})["params"]
    {'float32': Array([0., 0., 0., 1., 1.], dtype=float32)}
    """
    parts: Vectors = {}
    for path, array in by_path(tree).items():
        parts.setdefault(path.split("/")[0], {}).setdefault(array.dtype.name, []).append(array.reshape(-1))
    return jax.tree.map(jnp.concatenate, parts, is_leaf=lambda leaf: isinstance(leaf, list))


def unpack(vectors: Vectors, layout: Layout) -> dict[str, Any]:
    """Arrays by path, out of the vectors of those parts that are there."""
    arrays, ends = {}, {}
    for path, dtype, shape in layout:
        part = path.split("/")[0]
        if part in vectors:
            start = ends.get((part, dtype), 0)
            ends[part, dtype] = end = start + math.prod(shape)
            arrays[path] = vectors[part][dtype][start:end].reshape(shape)
    return arrays


def with_layout(vectors: Vectors, layout: Layout) -> dict[str, Any]:
    """The vectors, and their layout as bytes beside them, so that checksums of all guard that, too."""
    return {**vectors, "layout": np.frombuffer(json.dumps(layout).encode(), np.uint8)}
