"""Folders of images: what is read from them, and what is said of those that do not fit."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def test_a_tilde_stands_for_the_home_folder(split, monkeypatch):
    monkeypatch.setenv("HOME", str(split))
    assert len(open_folder("~")[0].examples) == 8
