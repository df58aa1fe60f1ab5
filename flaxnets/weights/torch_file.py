"""PyTorch's two file formats, the zip archive and the one before release 1.6, read without PyTorch."""

import functools
import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np

from flaxnets.errors import WeightsError
from flaxnets.weights.unpickle import FIX, Tensor, read_pickle

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"
NEITHER = "is neither a safetensors nor a PyTorch file; give a .safetensors or .pth file."
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

Find = Callable[[str], memoryview]
Load = Callable[[Tensor], np.ndarray]


def read_torch(data: mmap.mmap) -> tuple[Any, Load]:
    """What `torch.load` would give, its tensors as `Tensor`s, and a function that makes a read-only array of one.

    The arrays are views of `data`: those that nobody asks for are never read from the disk.

    Raises:
      WeightsError: the file holds more than tensors, or its parts contradict each other.
      Exception: whatever the parsers of zip archives and pickles make of a damaged file.
    """
    tree, find = _zip_archive(data) if data[:4] == ZIP_MAGIC else _legacy(data)

    def load(tensor: Tensor) -> np.ndarray:
        storage = tensor.storage
        content = find(storage.key)
        size = storage.dtype.itemsize
        if len(content) != storage.count * size:
            raise WeightsError(
                f"has a storage of {len(content)} bytes where {storage.count} elements take {storage.count * size}; "
                "get the file again."
            )
        array = np.ndarray(
            tensor.shape,
            storage.dtype,
            buffer=content,
            offset=(storage.start + tensor.offset) * size if 0 not in tensor.shape else 0,
            strides=[stride * size for stride in tensor.strides],
        )
        array.flags.writeable = False
        return array

    return tree, load


def _zip_archive(data: mmap.mmap) -> tuple[Any, Find]:
    """NAME/data.pkl, and each storage as NAME/data/KEY, uncompressed."""
    with zipfile.ZipFile(cast(BinaryIO, data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    # What is stored as it is cannot grow; so a small file cannot fill the memory.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise WeightsError("is compressed, as PyTorch's files never are; unpack it, or save it again by `torch.save`.")
    if sum(entry.file_size for entry in entries.values()) > len(data):
        raise WeightsError("is smaller than the parts that it lists; get the file again.")
    pickle = next((name for name in entries if name.endswith("/data.pkl")), None)
    if pickle is None:  # such as an .npz file
        raise WeightsError(NEITHER)
    folder = pickle.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in entries and _content(data, entries[order]) != b"little":
        raise WeightsError("was written on a big-endian machine; save it again on a little-endian one.")
    tree, _ = read_pickle(io.BytesIO(_content(data, entries[pickle])))

    @functools.cache
    def find(key: str) -> memoryview:
        return _content(data, entries[f"{folder}data/{key}"])

    return tree, find


def _content(data: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
    name_length, extra_length = struct.unpack_from("<HH", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_length + extra_length
    content = memoryview(data)[start : start + entry.file_size]
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise WeightsError(f"is damaged in its part {entry.filename}; get the file again.")
    return content


def _legacy(data: mmap.mmap) -> tuple[Any, Find]:
    """Five pickles (magic number, version, machine, object, keys of storages), then each storage after its length."""
    head = [read_pickle(data)[0] for _ in range(2)]
    if head != [LEGACY_MAGIC, LEGACY_VERSION]:
        raise WeightsError(f"is a pickle, but not one of PyTorch's; {FIX}")
    read_pickle(data)  # the machine that wrote it; the storages are little-endian on any
    tree, storages = read_pickle(data)
    keys = read_pickle(data)[0]
    contents: dict[str, memoryview] = {}
    position = data.tell()
    for key in keys:
        [count] = struct.unpack_from("<q", data, position)
        start = position + 8
        position = start + count * storages[key].dtype.itemsize
        if not start <= position <= len(data):
            raise WeightsError(f"ends in the middle of a storage of {count} elements; get the file again.")
        contents[key] = memoryview(data)[start:position]
    return tree, contents.__getitem__
