"""Checkpoint files of every kind are read exactly; damaged and hostile ones are refused, and nothing in them runs."""

import contextlib
import io
import os
import pickle
import stat
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_files as torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.errors import RunFolderError, WeightsError
from flaxnets.weights.files import read_weights, write_safetensors

ARRAYS = {
    "conv.weight": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    "bn.bias": np.arange(4, dtype=np.float32),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "none": np.zeros((0, 2), np.float32),
}
TENSORS = {
    name: torch.tensor(array, "LongStorage" if array.dtype == np.int64 else "FloatStorage")
    for name, array in ARRAYS.items()
}
WRITERS = pytest.mark.parametrize("write", [torch.zip_file, torch.legacy_file])


def read(folder: Path, content: bytes, suffix: str = ".pth") -> dict[str, np.ndarray]:
    file = folder / f"weights{suffix}"
    file.write_bytes(content)
    return read_weights(file)


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert read.keys() == expected.keys()
    for name, array in read.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


@WRITERS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pytorch_files_give_their_arrays(tmp_path, write, protocol):
    assert_same(read(tmp_path, write(OrderedDict(TENSORS), protocol)), ARRAYS)


def test_safetensors_give_their_arrays(tmp_path):
    assert_same(read(tmp_path, safetensors.numpy.save(ARRAYS), ".safetensors"), ARRAYS)
    assert_same(read(tmp_path, safetensors.numpy.save(ARRAYS), ".pth"), ARRAYS)


@WRITERS
def test_training_checkpoints_are_unwrapped(tmp_path, write):
    parallel = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    checkpoint = {"epoch": 3, "arch": "resnet50", "best": torch.tensor(0.7), "state_dict": parallel, "optimizer": [1]}
    assert_same(read(tmp_path, write(checkpoint)), ARRAYS)
    assert_same(read(tmp_path, write({"model": {"state_dict": TENSORS}})), ARRAYS)


def test_mappings_are_unwrapped():
    assert_same(read_weights({"state_dict": {f"module.{name}": array for name, array in ARRAYS.items()}}), ARRAYS)


@WRITERS
def test_views_share_a_storage(tmp_path, write):
    shared = torch.storage(np.arange(12, dtype=np.float32))
    views = {
        "whole": torch.Tensor(shared, 0, (3, 4), (4, 1)),
        "transposed": torch.Tensor(shared, 0, (4, 3), (1, 4)),
        "row": torch.Tensor(shared, 8, (4,), (1,)),
        "repeated": torch.Tensor(shared, 5, (2, 2), (0, 0)),
        "parameter": torch.Parameter(torch.Tensor(shared, 11, (), ())),
    }
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {"whole": whole, "transposed": whole.T, "row": whole[2], "repeated": np.full((2, 2), 5, np.float32)}
    assert_same(read(tmp_path, write(views)), {**expected, "parameter": np.array(11, np.float32)})


def test_old_files_hold_views_of_storages(tmp_path):
    view = torch.storage(np.arange(12, dtype=np.float32))
    view.view = ("1", 4, 6)
    content = torch.legacy_file({"a": torch.Tensor(view, 2, (2, 2), (2, 1))})
    assert_same(read(tmp_path, content), {"a": np.array([[6, 7], [8, 9]], np.float32)})


def test_python_2_wrote_ordered_dictionaries_as_lists_of_pairs(tmp_path):
    reference = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + reference + b"K\x00K\x02\x85K\x01\x85tR"
    tree = b"\x80\x02ccollections\nOrderedDict\n](](U\x01a" + tensor + b"ee\x85R."
    empty = torch.legacy_file({})
    head = empty[: empty.index(pickle.dumps({}, 2))]
    array = np.array([1.5, -2.0], np.float32)
    content = head + tree + pickle.dumps(["0"], 2) + (2).to_bytes(8, "little") + array.tobytes()
    assert_same(read(tmp_path, content), {"a": array})


@WRITERS
def test_types_are_kept(tmp_path, write):
    values = np.array([1.5, -2.0, 0.25])
    tensors = {
        "double": torch.tensor(values, "DoubleStorage"),
        "half": torch.tensor(values, "HalfStorage"),
        "bfloat16": torch.tensor([0x3FC0, 0xC000, 0x3E80], "BFloat16Storage"),
    }
    expected = {"double": values, "half": values.astype(np.float16), "bfloat16": values.astype(jnp.bfloat16)}
    assert_same(read(tmp_path, write(tensors)), expected)


def test_bfloat16_safetensors(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\xc0\x3f\x00\xc0"
    assert_same(read(tmp_path, content, ".safetensors"), {"a": np.array([1.5, -2.0], jnp.bfloat16)})


class Hostile:
    """Unpickles by calling a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", [torch.zip_file, torch.legacy_file, pickle.dumps])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, getattr])
def test_hostile_pickles_are_refused_by_name_and_not_run(tmp_path, write, function):
    mark = tmp_path / "ran"
    arguments = (f"__import__('os').mkdir({str(mark)!r})",) if function is eval else (str(mark), "x")
    arguments = (f"mkdir {mark}",) if function is os.system else arguments[: 1 if function is os.mkdir else 2]
    name = rf"(__builtin__|{function.__module__})\.{function.__name__}"
    with pytest.raises(WeightsError, match=rf"wants to call {name}, .*nothing was run.*torch\.save"):
        read(tmp_path, write({"state_dict": {"a": Hostile(function, *arguments)}}))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "no dictionary of tensors"),
        ({}, "no dictionary of tensors"),
        ({"epoch": 1, "net": TENSORS}, r"more than tensors \(epoch, net\)"),
        ({1: TENSORS["bn.bias"]}, r"more than tensors \(1\)"),
        ({("a",): TENSORS["bn.bias"]}, "tuple as a key"),
        ({"a": {1, 2}}, r"EMPTY_SET|wants to call __builtin__\.set"),
        ({"a": b"bytes"}, "wants to call _codecs.encode"),
    ],
)
@WRITERS
def test_other_content_is_refused(tmp_path, write, tree, message):
    with pytest.raises(WeightsError, match=message):
        read(tmp_path, write(tree))


@WRITERS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (13,), (1,)), (1, (3, 4), (4, 1)), (0, (3, 4), (5, 1)), (13, (0,), (1,))],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, write, offset, shape, strides):
    shared = torch.storage(np.arange(12))
    with pytest.raises(WeightsError, match=r"reaches element|is damaged"):
        read(tmp_path, write({"a": torch.Tensor(shared, offset, shape, strides)}))


@WRITERS
@pytest.mark.parametrize("shape", [(1024, 10**8), (2**62, 2**62)])
def test_tensors_that_are_larger_than_their_storage_are_refused(tmp_path, write, shape):
    one = torch.storage(np.zeros(1))
    with pytest.raises(
        WeightsError, match=rf"shape \[{shape[0]}, {shape[1]}\] in a storage of 1, .*; save it again by"
    ):
        read(tmp_path, write({"a": torch.Tensor(one, 0, shape, (0, 0))}))


@WRITERS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(-1, (1,), (1,)), (0, (-1,), (1,)), (0, (2,), (-1,)), (0, (2,), ()), (0, (1.0,), (1,)), (0, (True,), (1,))],
)
def test_sizes_that_are_none_are_refused(tmp_path, write, offset, shape, strides):
    with pytest.raises(WeightsError, match="is damaged"):
        read(tmp_path, write({"a": torch.Tensor(torch.storage(np.arange(12)), offset, shape, strides)}))


@WRITERS
def test_storages_shorter_than_they_say_are_refused(tmp_path, write):
    short = torch.storage(np.arange(12))
    short.count = 10**12
    with pytest.raises(WeightsError, match="a storage of 48 bytes where 1000000000000 elements take 4000000000000"):
        read(tmp_path, write({"a": torch.Tensor(short, 0, (10**12,), (1,))}))


def test_compressed_archives_are_refused(tmp_path):
    bomb = torch.zip_file({"a": torch.tensor(np.zeros(10**6))}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    with pytest.raises(WeightsError, match="is compressed"):
        read(tmp_path, bomb)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x80", b"hello, world", b"\x00" * 100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_no_format_are_refused(tmp_path, content, suffix):
    with pytest.raises(WeightsError, match=r"weights.*(is neither|is damaged|holds no)"):
        read(tmp_path, content, suffix)


def test_what_is_no_weights_file_is_called_so(tmp_path):
    for content, suffix in ((b"", ".pth"), (b"", ".safetensors"), (_npz(), ".npz"), (_npz(), ".pth")):
        with pytest.raises(WeightsError, match=r"is neither a safetensors nor a PyTorch file; give a \.safetensors or"):
            read(tmp_path, content, suffix)


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **ARRAYS)
    return file.getvalue()


FILES = {
    "zip": torch.zip_file({"state_dict": OrderedDict(TENSORS), "epoch": 1}),
    "zip, protocol 4": torch.zip_file(OrderedDict(TENSORS), protocol=4),
    "legacy": torch.legacy_file(OrderedDict(TENSORS)),
    "safetensors": safetensors.numpy.save(ARRAYS),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_truncation_is_refused(tmp_path, kind):
    whole = FILES[kind]
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        with pytest.raises(WeightsError):
            read(tmp_path, whole[:length])


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=150)
@given(data=st.data())
def test_mutated_files_raise_nothing_but_weights_errors(tmp_path_factory, kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(WeightsError):
        arrays = read(tmp_path_factory.getbasetemp(), bytes(content))
        assert all(np.array(array).shape == array.shape for array in arrays.values())


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(WeightsError, match=r"Cannot read .*; give a \.safetensors or \.pth file, or a run\."):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(RunFolderError, match=r"There is no run in .*; give a folder that `flaxnets train` wrote\."):
        read_weights(tmp_path)


def test_written_files_are_whole_and_never_replace_another(tmp_path):
    file = tmp_path / "weights.safetensors"
    write_safetensors(file, ARRAYS)
    assert_same(read_weights(file), ARRAYS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()
    with pytest.raises(WeightsError, match="exists; choose another name"):
        write_safetensors(file, {"a": np.zeros(1)})
    assert_same(read_weights(file), ARRAYS)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(WeightsError, match="Cannot write"):
        write_safetensors(tmp_path / "nowhere" / "weights.safetensors", ARRAYS)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
