"""`idx:PATH`: a folder with the four files of MNIST and its relatives, gzipped or not."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from flaxnets.data.arrays import ArrayExamples, checked
from flaxnets.data.sources import Source
from flaxnets.errors import DataError

UNSIGNED_BYTE = 8  # the third byte of a file says what its numbers are


def idx_sources(folder: str) -> tuple[Source, Source]:
    """Training and test split of `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, each maybe with `.gz`.

    Source: the format is described with MNIST, LeCun et al. 1998.

    Raises:
      DataError: a file is missing, damaged, or does not fit the others.
    """
    splits = []
    for split in ("train", "t10k"):
        images, labels = _read(folder, f"{split}-images", 3), _read(folder, f"{split}-labels", 1)
        splits.append((*checked(images, labels, f"{folder}, {split}"), split))
    classes = int(splits[0][1].max()) + 1
    if splits[1][1].max() >= classes:
        raise DataError(
            f"The test labels of {folder} go up to {splits[1][1].max()}, those to train on up to {classes - 1}; use "
            "files of one data set."
        )
    train, test = (
        Source(ArrayExamples(images, labels, f"{folder}, {split}"), tuple(map(str, range(classes))), 1, mirrors=False)
        for images, labels, split in splits
    )
    return train, test


def _read(folder: str, name: str, dimensions: int) -> np.ndarray:
    """The array in one file. Its header is 0, 0, type, number of dimensions, then each as 4 bytes, largest first."""
    # As published, and as some archives unpack them.
    names = [f"{name}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    file = next((path for path in (Path(folder, each) for each in names) if os.path.exists(path)), None)
    if file is None:
        raise DataError(f"There is no {names[0]} or {names[1]} in {folder}; give the folder of the files after idx:.")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is damaged: {error}; fetch it again.") from error
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}; mend its permissions.") from error
    header = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:header], ">u4").tolist() if len(data) >= header else []
    if data[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(data) - header != np.prod(shape, dtype=object):
        raise DataError(f"{file} is damaged or no {dimensions}-dimensional idx file of bytes; fetch it again.")
    array = np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    return array if dimensions == 3 else array.astype(np.int32)
