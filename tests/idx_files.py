"""MNIST's four files, made of few images."""

import gzip
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an idx file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, *, zipped: bool = True) -> None:
    """Write images [n, h, w] and labels [n], both uint8, once to train on and once to test on."""
    pack, end = (gzip.compress, ".gz") if zipped else (bytes, "")
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
        (folder / f"{split}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))
