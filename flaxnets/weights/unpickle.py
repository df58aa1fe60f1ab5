"""Reads the pickles inside PyTorch's files without running them: it builds tensors, and refuses everything else."""

import dataclasses
import math
import mmap
import pickletools
from typing import Any, BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from flaxnets.errors import WeightsError

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
STORAGE_TYPES = {
    f"{module}.{name}": np.dtype(kind) for module in ("torch", "torch.cuda") for name, kind in STORAGES.items()
}
ORDERED_DICT = "collections.OrderedDict"
TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = "torch._utils._rebuild_parameter"
KNOWN = {ORDERED_DICT, PARAMETER, *TENSOR, *STORAGE_TYPES}

LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
FIX = "save the tensors alone by `torch.save(model.state_dict(), file)`."


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle speaks of; it is never imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A part of a file's flat arrays.

    Attributes:
      key: which array.
      dtype: type of its elements.
      count: elements of the whole array, as the pickle states them.
      start, length: the elements that belong to this storage.
    """

    key: str
    dtype: np.dtype
    count: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage that lies within it; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(file: BinaryIO | mmap.mmap) -> tuple[Any, dict[str, Storage]]:
    """The object of one pickle, made of dictionaries, lists, tuples, literals and `Tensor`s; and its storages by key.

    Args:
      file: open at the pickle's first byte; afterwards it stands behind the pickle's last.

    Raises:
      WeightsError: the pickle speaks of anything that is not a tensor; nothing of it was run.
      ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each open mark
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(cast(BinaryIO, file)):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop(), storages
            case name if name in LITERALS:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                size = int(name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                item = stack.pop()
                _as(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _as(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [(key, value)])
            case "SETITEMS":
                items = since_mark()
                _fill(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module}.{name}"))
            case "BINPERSID":
                storage = _storage(*stack.pop())
                if storages.setdefault(storage.key, storage).dtype != storage.dtype:
                    raise TypeError("a storage of two types")
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_make(function.name, arguments))
            case "BUILD":  # attributes of a dictionary, such as PyTorch's versions of each module
                stack.pop()
                _as(dict, stack[-1])
            case name:
                raise WeightsError(f"holds more than tensors (pickle instruction {name}); {FIX}")
    raise ValueError("the pickle has no end")


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _fill(dictionary: Any, items: Any) -> None:
    for key, value in items:
        # Never a tuple: hashing one whose parts repeat each other may take longer than the universe has.
        if not isinstance(key, str | int | float | None):
            raise TypeError(f"{type(key).__name__} as a key")
        _as(dict, dictionary)[key] = value


def _known(name: str) -> Name:
    if name not in KNOWN:
        raise WeightsError(
            f"wants to call {name}, which may do anything; nothing was run. If you trust the file, load it in PyTorch "
            f"and {FIX}"
        )
    return Name(name)


def _make(function: str, arguments: Any) -> Any:
    """What calling a known name would give."""
    if function == ORDERED_DICT:
        result: dict[Any, Any] = {}
        if arguments:  # a list of pairs, as Python 2 wrote it
            _fill(result, arguments[0])
            arguments[0].clear()  # nobody uses it twice, except to make a small file large
        return result
    if function == PARAMETER:
        return _as(Tensor, arguments[0])
    if function in TENSOR:
        return _tensor(*arguments[:4])
    raise TypeError(f"{function} is not a function")


def _storage(tag: Any, kind: Any, key: Any, device: Any, count: Any, view: Any = None) -> Storage:
    """A storage from PyTorch's persistent id; `view` is (key, start, length) in old files, for a part of an array."""
    if tag != "storage" or kind.name not in STORAGE_TYPES or not isinstance(key, str):
        raise TypeError("a reference to something that is no storage")
    start, length = view[1:] if view else (0, count)
    _count(count, start, length)
    if start + length > count:
        raise WeightsError(f"has a storage that reaches element {start + length} of {count}; get the file again.")
    return Storage(key, STORAGE_TYPES[kind.name], count, start, length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    _as(Storage, storage)
    _count(offset, *_as(tuple, shape), *_as(tuple, strides))
    end = offset
    if 0 not in shape:
        end += 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if end > storage.length:
        raise WeightsError(
            f"has a tensor of shape {list(shape)} that reaches element {end} of a storage of {storage.length}; get "
            "the file again."
        )
    if math.prod(shape) > storage.length:  # strides of 0 would let a small file fill the memory
        raise WeightsError(
            f"has a tensor of shape {list(shape)} in a storage of {storage.length}, which repeats elements; save it "
            "again by `torch.save` after `tensor.contiguous()`."
        )
    return Tensor(storage, offset, shape, strides)


def _count(*numbers: Any) -> None:
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise TypeError("a size that is no size")
