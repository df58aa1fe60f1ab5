"""Checkpoints to arrays by name: safetensors, PyTorch's, run folders, told by their content; and safetensors out."""

import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from flaxnets.errors import WeightsError
from flaxnets.weights.torch_file import NEITHER, PICKLE_MAGIC, ZIP_MAGIC, read_torch
from flaxnets.weights.trained import read_run
from flaxnets.weights.unpickle import FIX

WRAPPERS = ("state_dict", "model")
PARALLEL = "module."  # what PyTorch's DataParallel puts before every name

SAFETENSORS_TYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "BOOL": np.bool_},
    **{f"{letter}{bits}": np.dtype(f"{letter.lower()}{bits // 8}") for letter in "IU" for bits in (8, 16, 32, 64)},
}


def read_weights(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by their names in a checkpoint.

    Args:
      source: a .safetensors, .pth or .pt file, a run folder, of which the best checkpoint is read, or a mapping of
        names to arrays. A dictionary around the tensors (`state_dict`, `model`) and DataParallel's `module.` before
        every name are taken off.

    Raises:
      WeightsError: no such file, a damaged one, or one that holds anything but tensors. Nothing in it is ever run.
      RunFolderError: a folder that holds no run, no checkpoint yet, or a damaged one.
    """
    if not isinstance(source, Mapping) and os.path.isdir(source):
        return read_run(source).tensors()
    name = "The mapping of weights" if isinstance(source, Mapping) else os.fspath(source)
    try:
        return _named(source) if isinstance(source, Mapping) else _read(Path(source))
    except OSError as error:
        raise _unreadable(name, error) from error
    except WeightsError as error:
        raise WeightsError(f"{name} {error}") from error
    except Exception as error:  # whatever a parser makes of damaged bytes
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{name} is damaged ({reason}); get it again.") from error


def require_file(source: Path) -> None:
    """Raise WeightsError, as `read_weights` would, where there is no file that can be read."""
    try:
        source.open("rb").close()
    except OSError as error:
        raise _unreadable(os.fspath(source), error) from error


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a file at once, or not at all. Raises WeightsError where it exists or cannot be written."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            whole = Path(folder) / path.name
            whole.write_bytes(safetensors.numpy.save(dict(tensors), metadata={"format": "pt"}))
            os.link(whole, path)  # as a rename, but it refuses to replace a file
    except FileExistsError as error:
        raise WeightsError(f"{path} exists; choose another name, or delete it first.") from error
    except OSError as error:
        raise WeightsError(f"Cannot write {path}: {error.strerror}; choose another place.") from error


def _unreadable(name: str, error: OSError) -> WeightsError:
    return WeightsError(f"Cannot read {name}: {error.strerror}; give a .safetensors or .pth file, or a run.")


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise WeightsError(NEITHER)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[8:9] == b"{" or path.suffix == ".safetensors":
        return _named({name: _safetensor(**entry) for name, entry in safetensors.deserialize(data[:])})
    if data[:4] != ZIP_MAGIC and data[:1] != PICKLE_MAGIC:
        raise WeightsError(NEITHER)
    tree, load = read_torch(data)
    return {name: load(tensor) for name, tensor in _state_dict(tree).items()}


def _safetensor(dtype: str, shape: list[int], data: bytearray) -> np.ndarray:
    if dtype not in SAFETENSORS_TYPES:
        raise WeightsError(f"has a tensor of type {dtype}; store it as float32.")
    return np.frombuffer(data, SAFETENSORS_TYPES[dtype]).reshape(shape)


def _named(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in _state_dict(tree).items()}


def _state_dict(tree: Any) -> dict[str, Any]:
    """The tensors by name inside what was stored, without the wrappers that training scripts put around them."""
    for wrapper in WRAPPERS * 2:  # in either order
        if isinstance(tree, Mapping) and isinstance(tree.get(wrapper), Mapping):
            tree = tree[wrapper]
    if not isinstance(tree, Mapping) or not tree:
        raise WeightsError(f"holds no dictionary of tensors; {FIX}")
    others = [str(name) for name, value in tree.items() if not isinstance(name, str) or not hasattr(value, "shape")]
    if others:
        raise WeightsError(f"holds more than tensors ({', '.join(others[:8])}); {FIX}")
    parallel = all(name.startswith(PARALLEL) for name in tree)
    return {name.removeprefix(PARALLEL) if parallel else name: value for name, value in tree.items()}
