"""Writes the bytes of PyTorch's files, without PyTorch: to the reader they look as if `torch.save` had made them."""

import dataclasses
import io
import itertools
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from typing import Any
from unittest import mock

import numpy as np

KINDS = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "BFloat16Storage": "u2"}

_torch, _utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
for _name in KINDS:
    setattr(_torch, _name, type(_name, (), {"__module__": "torch"}))


def _rebuild_tensor_v2(*arguments: Any) -> None: ...


def _rebuild_parameter(*arguments: Any) -> None: ...


for _function in (_rebuild_tensor_v2, _rebuild_parameter):
    _function.__module__ = "torch._utils"
    setattr(_utils, _function.__name__, _function)


@dataclasses.dataclass
class Storage:
    """A flat array; `count` is what the file says of its length."""

    array: np.ndarray
    count: int
    kind: str
    view: tuple | None = None


@dataclasses.dataclass
class Tensor:
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    def __reduce__(self):
        arguments = (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())
        return _rebuild_tensor_v2, arguments


@dataclasses.dataclass
class Parameter:
    tensor: Tensor

    def __reduce__(self):
        return _rebuild_parameter, (self.tensor, True, OrderedDict())


def storage(array: np.ndarray, kind: str = "FloatStorage") -> Storage:
    flat = np.ascontiguousarray(array, KINDS[kind]).reshape(-1)
    return Storage(flat, flat.size, kind)


def tensor(array: Any, kind: str = "FloatStorage") -> Tensor:
    """The tensor of an array, with a storage of its own."""
    shape = np.shape(array)
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return Tensor(storage(np.asarray(array), kind), 0, shape, strides)


def zip_file(tree: Any, protocol: int = 2, **options: Any) -> bytes:
    """The archive that `torch.save` writes since 1.6; `options` of `zipfile.ZipFile`."""
    data, storages = _pickle(tree, protocol, legacy=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/byteorder", "little")
        for key, stored in storages.items():
            archive.writestr(f"model/data/{key}", stored.array.tobytes())
        archive.writestr("model/version", "3\n")
    return file.getvalue()


def legacy_file(tree: Any, protocol: int = 2) -> bytes:
    """The row of pickles and arrays that `torch.save` wrote before 1.6."""
    data, storages = _pickle(tree, protocol, legacy=True)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    arrays = [struct.pack("<q", stored.array.size) + stored.array.tobytes() for stored in storages.values()]
    return b"".join([*head, data, pickle.dumps(list(storages), 2), *arrays])


def _pickle(tree: Any, protocol: int, legacy: bool) -> tuple[bytes, dict[str, Storage]]:
    numbers = itertools.count()
    keys: dict[int, str] = {}
    storages: dict[str, Storage] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if not isinstance(obj, Storage):
                return None
            key = keys.setdefault(id(obj.array), str(next(numbers)))
            storages[key] = obj
            reference = ("storage", getattr(_torch, obj.kind), key, "cpu", obj.count)
            return (*reference, obj.view) if legacy else reference

    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": _torch, "torch._utils": _utils}):
        Pickler(file, protocol).dump(tree)
    return file.getvalue(), storages
