"""The reference networks of tests/golden/parity.json, and the rule that gives their weights."""

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxnets import models, registry
from flaxnets.plugin import ImageClassifier

NAMES = [entry.qualified for entry in registry.available() if entry.distribution == "flaxnets"]
REFERENCES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "parity.json").read_text(encoding="utf-8")
)


abstract = functools.cache(models.abstract)


def checkpoint(shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tensors by PyTorch's names and shapes; each a function of its name."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return np.exp(np.float32(0.2) * z)
    if leaf == "running_mean" or (z.ndim == 1 and leaf != "weight"):
        return np.float32(0.1) * z
    if z.ndim == 1:
        return 1 + np.float32(0.1) * z
    return (z * np.sqrt(1.5 / np.prod(shape[1:]))).astype(np.float32)


def images(height: int, width: int) -> np.ndarray:
    """Two images [2, height, width, 3]."""
    return np.random.RandomState(0).standard_normal((2, height, width, 3)).astype(np.float32)


def infer(model: ImageClassifier, images: np.ndarray) -> np.ndarray:
    """Logits, compiled."""
    definition, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, images: nnx.merge(definition, state)(images))(state, images))
