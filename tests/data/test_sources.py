"""Folders of images, idx files and arrays: what is read from them, and what is said of those that do not fit."""

import gzip
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx_files import idx, write_idx
from PIL import Image

from flaxnets.config import Data
from flaxnets.data import pixels
from flaxnets.data.folder import images_in
from flaxnets.data.sources import hold_out, open_sources
from flaxnets.errors import DataError


def write_images(folder, count: int, value: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 6), (value, number, 0)).save(folder / f"{number}.png")


@pytest.fixture
def split(tmp_path):
    """train/ and val/ with 4 and 2 images in each of two classes."""
    for name, count in (("train", 4), ("val", 2)):
        for value, label in enumerate(("cat", "dog")):
            write_images(tmp_path / name / label, count, value)
    return tmp_path


def open_folder(path, **settings):
    return open_sources(Data(name=f"folder:{path}", **settings))


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80),
    st.floats(0.01, 0.99),
    st.permutations(range(80)),
    st.booleans(),
)
def test_a_hold_out_is_stratified_and_depends_on_names_alone(labels, fraction, order, more):
    keys = [f"{i}.jpg".encode() for i in range(len(labels))]
    train, test = hold_out(labels, keys, fraction)
    assert sorted(train + test) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        held = sum(labels[i] == label for i in test)
        assert abs(held - fraction * count) <= 1
        assert (0 < held < count) == (count > 1)
    shuffled = [i for i in order if i < len(labels)]
    again = hold_out([labels[i] for i in shuffled], [keys[i] for i in shuffled], fraction)[1]
    assert {keys[shuffled[i]] for i in again} == {keys[i] for i in test}


def test_a_folder_with_a_part_to_test_on(split):
    for settings in ({}, {"test": "val"}):
        train, test = open_folder(split, **settings)
        assert (len(train.examples), len(test.examples)) == (8, 4)
        assert (train.class_names, train.channels, train.mirrors) == (("cat", "dog"), 3, True)
        for source in (train, test):
            for index in range(len(source.examples)):
                example = source.examples[index]
                assert pixels.decode(example["image"], 3)[0, 0, 0] == example["label"]
                assert example["name"].endswith(".png")


def test_a_folder_without_one_is_split_by_class_always_alike(tmp_path):
    write_images(tmp_path / "cat", 10)
    write_images(tmp_path / "dog", 20, 1)
    train, test = open_folder(tmp_path, holdout=0.3)
    assert np.bincount(train.examples.labels).tolist() == [7, 14]
    assert np.bincount(test.examples.labels).tolist() == [3, 6]
    assert not set(train.examples.files) & set(test.examples.files)
    assert open_folder(tmp_path, holdout=0.3)[1].examples.files == test.examples.files


def test_any_name_any_case_and_links_that_run_in_circles(split):
    odd = os.fsdecode(b"caf\xe9\n\xff.JPeG")
    cat = split / "train" / "cat"
    Image.new("RGB", (8, 6)).save(cat / odd, "JPEG")
    (cat / "notes.txt").write_text("not an image")
    (cat / ".hidden.jpg").write_bytes(b"")
    (split / "train" / ".cache").mkdir()
    write_images(cat / "more", 3)
    (cat / "more" / "round").symlink_to(cat)
    (cat / "up").symlink_to(split / "train")
    (cat / "linked").symlink_to(split / "val" / "cat")
    (split / "train" / "self").symlink_to("self")
    os.mkfifo(cat / "pipe.png")  # who reads it waits for ever
    (cat / "piped.png").symlink_to("pipe.png")
    train, _ = open_folder(split)
    assert train.class_names == ("cat", "dog")
    assert np.bincount(train.examples.labels).tolist() == [4 + 1 + 3 + 2, 4]
    (example,) = [train.examples[i] for i, file in enumerate(train.examples.files) if file.endswith(odd)]
    assert example["name"].endswith(r"caf\udce9\n\udcff.JPeG")


def test_a_folder_is_looked_through_however_it_is_called(split, monkeypatch):
    monkeypatch.chdir(split / "train" / "cat")
    for name, count in ((".", 4), ("..", 8), ("../../val", 4), ("../cat/..", 8)):
        assert len(list(images_in(Path(name)))) == count, name


def test_parts_by_other_names_are_chosen_and_else_neither_overlooked_nor_classes(split):
    (split / "val").rename(split / "Testing")
    with pytest.raises(DataError, match=r"holds Testing, by name and content no classes but parts .* --data\.test, or"):
        open_folder(split)
    assert len(open_folder(split, test="Testing")[1].examples) == 4
    (split / "train").rename(split / "Train")
    with pytest.raises(DataError, match="holds Testing, Train, by name and content no classes but parts to train or"):
        open_folder(split)
    train, test = open_folder(split, train="Train", test="Testing")
    assert (len(train.examples), len(test.examples), train.class_names) == (8, 4, ("cat", "dog"))


def test_a_class_may_be_called_like_a_part(tmp_path):
    write_images(tmp_path / "Train", 4)
    write_images(tmp_path / "Tram" / "old", 4)
    assert open_folder(tmp_path)[0].class_names == ("Train", "Tram")


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        (
            lambda path: None,
            {"name": "folder:/none"},
            r"^Cannot read the folder /none: No such file .* after folder:\.$",
        ),
        (
            lambda path: None,
            {"name": "folder:~no-such-user/x"},
            r"^Cannot read the folder ~no-such-user/x: No such file .* after folder:\.$",
        ),
        (lambda path: (path / "train" / "empty").mkdir(), {}, "there is no image in empty; .*Add some, or remove"),
        (
            lambda path: write_images(path / "test" / "cow", 1),
            {},
            "test has classes that are not there to train on: cow",
        ),
        (lambda path: None, {"test": "tset"}, r"no folder 'tset' in .*Did you mean test.* Choose one by --data\.test"),
        (lambda path: None, {"train": "trian"}, r"no folder 'trian' in .*Did you mean train.* by --data\.train\.$"),
        (
            lambda path: (path / "train" / "dog").rename(path / "dog"),
            {},
            "holds 1 folders of images; a classifier needs",
        ),
    ],
)
def test_folders_that_do_not_fit_are_refused_with_the_fix(split, damage, settings, message):
    write_images(split / "test" / "cat", 1)
    damage(split)
    with pytest.raises(DataError, match=message) as error:
        open_sources(Data(**{"name": f"folder:{split}", **settings}))
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"Cannot read the folder .*loop: Too many levels of symbolic links; give one"):
        open_folder(tmp_path / "loop")


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


def test_a_tilde_stands_for_the_home_folder(split, monkeypatch):
    monkeypatch.setenv("HOME", str(split))
    write_idx(split, IMAGES, LABELS)
    np.savez(split / "a.npz", images=IMAGES, labels=LABELS)
    for name, count in (("folder:~", 8), ("idx:~", 30), ("arrays:~/a.npz", 24)):
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
