"""TensorFlow Datasets without TensorFlow: prepared sets of real bytes, and what is said of those that do not fit."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flaxnets.data.tfds_source import prepare, tfds_sources
from flaxnets.errors import DataError


class PhotoCorners(tfds.core.GeneratorBasedBuilder):
    """Colour crops of scikit-learn's two photographs: which photograph is it?"""

    VERSION = tfds.core.Version("2.1.0")

    def _info(self):
        features = {
            "photo": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "which": tfds.features.ClassLabel(names=["china", "flower"]),
            "x": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("photo", "which")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 12), "validation": self._generate_examples(12, 16)}

    def _generate_examples(self, start, stop):
        from sklearn.datasets import load_sample_images

        for label, photo in enumerate(load_sample_images().images):
            for i in range(start, stop):
                jpeg = io.BytesIO()
                Image.fromarray(photo[10 * i : 10 * i + 100, 20 * i : 20 * i + 80]).save(jpeg, "JPEG")
                yield f"{label}-{i}", {"photo": jpeg.getvalue(), "which": label, "x": i}


class NoImages(tfds.core.GeneratorBasedBuilder):
    """Numbers."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"x": np.int32}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"x": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for builder in (PhotoCorners, NoImages):
        builder(data_dir=folder, file_format="array_record").download_and_prepare(file_format="array_record")
    return folder


def test_a_prepared_set_is_read_though_its_builder_is_not_at_hand(flaxnets, prepared):
    done = flaxnets("check-data", "photo_corners:2.1.0", "--test", "validation", "--dir", prepared)
    assert done.stdout == "train: 24 images, 0 of them broken\ntest: 8 images, 0 of them broken\n2 classes\n"


def test_a_prepared_set_is_read_by_name_version_and_slice(prepared):
    train, test = tfds_sources("photo_corners:2.1.0", ["train[:50%]", "validation"], prepared)
    assert (len(train.examples), len(test.examples)) == (12, 8)
    assert (train.class_names, train.channels, train.mirrors) == (("china", "flower"), 3, True)
    example = test.examples[0]
    assert example["name"] == "example 0 of photo_corners:2.1.0, validation"
    assert Image.open(io.BytesIO(example["image"])).size == (80, 100)
    assert "tensorflow" not in sys.modules


def test_catalogue_sets_are_known_without_tensorflow():
    with tfds.testing.mock_data(num_examples=5):
        (source,) = tfds_sources("cifar10", ["train"], None)
    assert (len(source.class_names), source.channels, source.mirrors) == (10, 3, True)


def test_prepare_says_where_the_examples_are_and_how_to_train(flaxnets):
    place = flaxnets.folder / "mine"
    done = flaxnets("prepare", "flaxnets_digits", "--dir", place)
    assert f"{place}/flaxnets_digits/1.0.0: 1,442 examples in train, 355 examples in test\n" in done.stdout
    assert f"flaxnets train --data.name flaxnets_digits --data.dir {place}\n" in done.stdout


class EncodedByTensorFlow(tfds.core.GeneratorBasedBuilder):
    """Yields arrays, as most sets of the catalogue do; TFDS encodes these by TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": np.zeros((8, 8, 1), np.uint8), "label": 0}


def test_preparing_without_tensorflow_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        DataError,
        match=r"needs a package that is absent \(.*tensorflow.*\); run: pip install 'flaxnets\[prepare\]', and",
    ):
        prepare("encoded_by_tensor_flow", tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("cifar11", "train", r"No data set named 'cifar11'\. Did you mean .*cifar10"),
        ("photo_corner", "train", r"No data set named 'photo_corner'\. Did you mean photo_corners"),
        ("cifar10", "train", r"'cifar10' is not prepared as array_record in .*; run: flaxnets prepare cifar10 --dir /"),
        ("photo_corners", "trian", r"no split 'trian': it has train, validation; choose by --data\.train"),
        (
            "photo_corners",
            "train[:0]",
            r"'train\[:0\]' .*'photo_corners' is empty, .*; choose another by --data\.train",
        ),
        ("photo_corners", "train[5:3]", r"'train\[5:3\]' .*a part of it ends before it begins; choose another by --"),
        ("photo_corners", "train[5:3] + validation", r"'train\[5:3\] \+ validation' .* ends before it begins; choose"),
        ("no_images", "train", r"does not pair one image with one class label; choose another by --data\.name"),
        ("cifar10/x=1", "train", r"'cifar10/x=1' cannot be used: .*argument 'x'\. Choose another by --data\.name\.$"),
        (
            "a b",
            "train",
            r"'a b' cannot be used: Parsing builder name string a b failed\. Choose another by --data\.name",
        ),
        ("", "train", r"'' cannot be used: .* Choose another by --data\.name"),
        ("flaxnets_digits:7.0.0", "train", r"'flaxnets_digits:7.0.0' cannot be used: .*only: 1\.0\.0.*--data\.name"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_fix(prepared, name, split, message):
    with pytest.raises(DataError, match=message) as error:
        tfds_sources(name, [split], prepared)
    assert "\n" not in str(error.value)
