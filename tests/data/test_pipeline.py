"""Batches are pure functions of (seed, step), whatever the number of hosts; no example is lost or counted twice."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from flaxnets.config import Augmentation, Data
from flaxnets.data import augmentation, geometry, images, pipeline, sources


@pytest.fixture(scope="module")
def digits(data_dir):
    return sources.tfds_sources("flaxnets_digits", ["train", "test"], data_dir)


def batches_of(source, seed=0, **rest):
    transforms = augmentation.train_transforms(Augmentation(), 12, mirrors=False, mean=(0.5,))
    return pipeline.train_batches(source, transforms, 48, seed=seed, **rest)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_the_digits_are_all_there_in_a_stratified_split(digits):
    train, test = digits
    labels = [np.array([split.examples[i]["label"] for i in range(len(split.examples))]) for split in digits]
    assert (len(train.examples), len(test.examples)) == (1442, 355)
    for digit in range(10):
        assert (labels[1] == digit).mean() == pytest.approx((labels[0] == digit).mean(), abs=0.002)
    encoded = {split.examples[i]["image"] for split in digits for i in range(len(split.examples))}
    assert len(encoded) == 1797  # no picture stands in both splits
    assert train.class_names == tuple("0123456789")
    assert not train.mirrors


def test_pixels_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    known = {(pixels[i].tobytes(), labels[i]) for i in range(len(pixels))}
    for index in (0, 7, 354):
        example = digits[1].examples[index]
        decoded = np.asarray(Image.open(io.BytesIO(example["image"])), float)
        assert (np.round(decoded * 16 / 255).reshape(-1).tobytes(), example["label"]) in known


def test_a_batch_is_a_function_of_seed_and_step(digits):
    assert_same(batches_of(digits[0], seed=3)[71], batches_of(digits[0], seed=3)[71])
    different = batches_of(digits[0], seed=4)[71]
    assert (batches_of(digits[0], seed=3)[71]["image"] != different["image"]).any()


def test_hosts_share_the_global_batch(digits):
    whole = batches_of(digits[0])
    parts = [batches_of(digits[0], host=host, hosts=4) for host in range(4)]
    for step in (0, 35):
        together = [part[step] for part in parts]
        assert_same({name: np.concatenate([each[name] for each in together]) for name in together[0]}, whole[step])


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_repeated_augmentation_changes_each_image_anew(digits, repeats):
    once, repeated = (
        pipeline.train_batches(digits[0], (geometry.Resize(8),), 48, seed=1, repeats=each) for each in (1, repeats)
    )
    for step in (0, 7):
        order = [(48 * step + place) // repeats for place in range(48)]
        expected = np.stack([once[index // 48]["image"][index % 48] for index in order])
        np.testing.assert_array_equal(repeated[step]["image"], expected)
    shifted = batches_of(digits[0], repeats=repeats)[3]["image"][-repeats:]
    assert len({image.tobytes() for image in shifted}) > 1
    hosts = [batches_of(digits[0], repeats=repeats, host=host, hosts=2)[3]["image"] for host in range(2)]
    np.testing.assert_array_equal(np.concatenate(hosts), batches_of(digits[0], repeats=repeats)[3]["image"])


def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(digits):
    order = pipeline.grain.MapDataset.source(digits[0].examples).seed(0).shuffle().repeat()
    epochs = [[order[epoch * 1442 + i]["image"] for i in range(1442)] for epoch in range(2)]
    assert len(set(epochs[0])) == len(set(epochs[1])) == 1442
    assert epochs[0] != epochs[1]


def test_evaluation_counts_every_example_once(digits):
    batches = pipeline.eval_batches(digits[1], augmentation.eval_transforms(Augmentation(), 8), 64)
    assert len(batches) == 6
    weights = np.concatenate([batches[i]["weight"] for i in range(6)])
    assert weights.sum() == 355
    kept = np.concatenate([batches[i]["image"] for i in range(6)])[weights == 1]
    assert len({picture.tobytes() for picture in kept}) == 355


def test_batches_reach_the_devices_from_any_step_on(digits):
    sharding = jax.sharding.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    stream = pipeline.on_devices(batches_of(digits[0]), sharding, start=30)
    for step in (30, 31):
        batch = next(stream)
        assert len(batch["image"].addressable_shards) == 8
        assert_same({name: np.asarray(array) for name, array in batch.items()}, batches_of(digits[0])[step])
    stream.close()


def test_statistics_are_those_of_the_pixels(digits):
    mean, std = pipeline.pixel_statistics(digits[0], (geometry.Resize(8),), most=10_000)
    decoded = [np.asarray(Image.open(io.BytesIO(digits[0].examples[i]["image"]))) / 255 for i in range(1442)]
    assert mean == pytest.approx([np.mean(decoded)])
    assert std == pytest.approx([np.std(decoded)])


def test_what_a_configuration_describes_is_opened(data_dir):
    data = Data(dir=data_dir, train="train[:100]", batch_size=16, image_size=20)
    opened = images.open_images(data, Augmentation(repeats=16, crop="none"), seed=1)
    assert opened.train[0]["image"].shape == (16, 20, 20, 1)
    assert (opened.train[0]["image"] == opened.train[0]["image"][0]).all()
    data = Data(dir=data_dir, train="train[:100]", batch_size=16, channels=3)
    coloured = images.open_images(data, Augmentation(erase=1.0), seed=1)
    painted = (coloured.train[0]["image"] == np.round(255 * np.array(coloured.mean))).all(-1).sum((1, 2))
    assert (painted >= 0.01 * 32 * 32).all()
    assert coloured.train[0]["image"].shape == (16, 32, 32, 3)
    assert len(coloured.mean) == 3
    assert (opened.train_count, opened.test_count, opened.channels, len(opened.class_names)) == (100, 355, 1, 10)
