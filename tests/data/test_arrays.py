"""Arrays in idx and .npz files: what is read from them, and what is said of those that do not fit."""

import gzip
import io
import re
import zipfile

import numpy as np
import pytest
from idx_files import idx, write_idx

from flaxnets.config import Data
from flaxnets.data.sources import open_sources
from flaxnets.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_hold_what_was_written(tmp_path, zipped):
    write_idx(tmp_path, IMAGES, LABELS, zipped=zipped)
    for source in open_sources(Data(name=f"idx:{tmp_path}")):
        assert (len(source.examples), source.class_names, source.channels) == (30, ("0", "1", "2"), 1)
        assert not source.mirrors
        np.testing.assert_array_equal(source.examples[7]["image"][..., 0], IMAGES[7])
        assert source.examples[7]["label"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"There is no train-images-idx3-ubyte or train-images-idx3-ubyte\.gz in"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "ubyte.gz is damaged: .*fetch it again"),
        (lambda file: file.write_bytes(b"<html>"), "ubyte.gz is damaged: .*fetch it again"),
        (lambda file: file.write_bytes(gzip.compress(idx(IMAGES)[:-1])), "is damaged or no 3-dimensional idx file"),
        (lambda file: file.write_bytes(gzip.compress(b"\0")), "is damaged or no 3-dimensional idx file"),
        (lambda file: file.write_bytes(gzip.compress(idx(IMAGES[:9]))), r"labels of .* are int32 \[30\]; .*\[9\], one"),
    ],
)
def test_idx_files_that_do_not_fit_are_refused(tmp_path, damage, message):
    write_idx(tmp_path, IMAGES, LABELS)
    damage(tmp_path / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=message):
        open_sources(Data(name=f"idx:{tmp_path}"))


def test_a_name_too_long_for_a_folder_is_refused():
    with pytest.raises(
        DataError, match=r"There is no train-images-idx3-ubyte .* give the folder of the files after idx:"
    ):
        open_sources(Data(name=f"idx:{300 * 'a'}"))


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_idx(tmp_path, IMAGES, LABELS)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    for name, count in (("idx:~", 30), ("arrays:~/a.npz", 24)):
        assert len(open_sources(Data(name=name))[0].examples) == count


@pytest.mark.parametrize(("part", "other"), [("train", "train[:90%]"), ("test", "train[90%:]")])
def test_another_split_of_files_that_have_theirs_is_refused_and_not_ignored(tmp_path, part, other):
    write_idx(tmp_path, IMAGES, LABELS)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    for name in (f"idx:{tmp_path}", f"arrays:{tmp_path / 'a.npz'}"):
        with pytest.raises(DataError, match=rf"no split {re.escape(repr(other))}; leave --data.{part} at '{part}'"):
            open_sources(Data(name=name, **{part: other}))


def test_an_npz_file_is_split_by_class(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=["a", "b", "c"])
    train, test = open_sources(Data(name=f"arrays:{tmp_path / 'a.npz'}", holdout=0.2))
    assert (len(train.examples), len(test.examples), train.class_names) == (24, 6, ("a", "b", "c"))
    assert np.bincount(test.examples.labels).tolist() == [2, 2, 2]
    seen = {source.examples[i]["image"].tobytes() for source in (train, test) for i in range(len(source.examples))}
    assert seen == {image.tobytes() for image in IMAGES}


@pytest.mark.parametrize("labels", [np.arange(256, dtype=np.uint8), np.arange(128, dtype=np.int8)])
def test_labels_may_fill_their_type(tmp_path, labels):
    labels = np.repeat(labels, 2)
    np.savez(tmp_path / "a.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    train, _ = open_sources(Data(name=f"arrays:{tmp_path / 'a.npz'}"))
    assert train.class_names == tuple(map(str, range(len(labels) // 2)))


def test_class_names_may_be_bytes(tmp_path):
    names = np.array(["a", "bé", "c"])
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=np.char.encode(names, "utf-8"))
    assert open_sources(Data(name=f"arrays:{tmp_path / 'a.npz'}"))[0].class_names == ("a", "bé", "c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "lacks images or labels; write it by numpy.savez"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"are float64 \[30, 5, 4, 1\]; they have to be uint8"),
        ({"images": IMAGES, "labels": LABELS[:9]}, r"are uint8 \[9\]; they have to be integers \[30\]"),
        ({"images": IMAGES, "labels": LABELS.astype(int) - 1}, "has the label -1; labels have to count from 0 on"),
        ({"images": IMAGES, "labels": 0 * LABELS}, "All labels of .* are 0; a classifier needs images of two"),
        ({"images": IMAGES, "labels": LABELS, "class_names": ["a"]}, "has the label 2 and 1 class names; give a name"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": "abc"},
            r"class_names of .* are <U3 \[\]; they have to be strings \[classes\]\.",
        ),
        (
            {"images": IMAGES, "labels": LABELS.astype(int) * 50},
            "has the label 100 and 30 images; number the classes from",
        ),
        (
            {"images": IMAGES, "labels": LABELS.astype(int) << 61},
            "has the label 4611686018427387904 and 30 images; number",
        ),
        ({"images": IMAGES[:3], "labels": LABELS[:3]}, "Each class of .* has one image; add some to test on"),
        ({"images": IMAGES, "labels": np.array([{}] * 30)}, "is no .npz file of plain arrays; write it by numpy.savez"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_sources(Data(name=f"arrays:{tmp_path / 'a.npz'}"))


def npz(header: bytes) -> bytes:
    """An .npz file whose images have such a header and nothing else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"PK\3\4 no zip",
        b"\x93NUMPY",
        npz(b"((("),
        npz(b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000000,)}"),
        npz(b"")[:40] + b"\xff" + npz(b"")[41:],  # where the compressed bytes begin
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(
        DataError,
        match=r"Cannot read .*No such file.*after arrays:|is no \.npz file of plain arrays|is damaged or larger than",
    ):
        open_sources(Data(name=f"arrays:{tmp_path / 'a.npz'}"))
