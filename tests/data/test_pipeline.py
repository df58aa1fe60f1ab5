"""Batches are pure functions of (seed, step), whatever the number of hosts; no example is lost or counted twice."""

import dataclasses
import io
import math
import time

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from flaxnets.config import Augmentation, Data
from flaxnets.data import augmentation, geometry, images, loading, pipeline, pixels
from flaxnets.data.sources import Source
from flaxnets.data.tfds_source import tfds_sources
from flaxnets.errors import DataError


@pytest.fixture(scope="module")
def digits(data_dir):
    return tfds_sources("flaxnets_digits", ["train", "test"], data_dir)


def batches_of(source, seed=0, batch_size=48, **options):
    transforms = augmentation.train_transforms(Augmentation(), 12, mirrors=False, mean=(0.5,))
    return pipeline.TrainBatches(source, transforms, batch_size, seed=seed, **options)


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


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Examples whose one pixel, and label, says which one it is."""

    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": np.full((1, 1, 1), index, np.uint8), "label": index, "name": str(index)}


def numbered_batches(count, batch_size, **options):
    source = Source(Numbered(count), tuple(map(str, range(count))), 1, mirrors=False)
    return pipeline.TrainBatches(source, (geometry.Resize(1),), batch_size, **{"seed": 0, **options})


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(count, batch_size, seed):
    batches = numbered_batches(count, batch_size, seed=seed)
    labels = np.concatenate([batches[k]["label"] for k in range(2 * math.ceil(count / batch_size) + 1)])
    epochs = labels[:count].tolist(), labels[count : 2 * count].tolist()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(count))
    if count > 20:  # one chance in 20!
        assert epochs[0] != epochs[1]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_any_number_of_hosts_shares_the_same_global_batch(count, rows, hosts, step):
    whole = numbered_batches(count, rows * hosts)[step]
    parts = [numbered_batches(count, rows * hosts, host=host, hosts=hosts)[step] for host in range(hosts)]
    assert_same({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


def test_repeated_augmentation_shows_an_image_several_times_in_a_row_changed_anew(digits):
    labels = numbered_batches(50, 30, repeats=3)[0]["label"]
    assert (labels.reshape(10, 3) == labels[::3, None]).all()
    assert len(set(labels)) == 10
    shifted = batches_of(digits[0], repeats=6)[3]["image"]
    for row in range(0, 48, 6):
        assert len({image.tobytes() for image in shifted[row : row + 6]}) > 1


def test_two_epochs_of_one_seed_are_not_those_of_the_next_seed():
    second = numbered_batches(40, 40)[1]["label"]
    assert (second != numbered_batches(40, 40, seed=1)[0]["label"]).any()


def test_a_late_step_costs_no_more_than_an_early_one(digits):
    started = time.perf_counter()
    assert batches_of(digits[0])[10**9]["image"].shape == (48, 12, 12, 1)
    assert time.perf_counter() - started < 1


def test_evaluation_counts_every_example_once(digits):
    batches = pipeline.EvalBatches(digits[1], augmentation.eval_transforms(Augmentation(), 8), 64)
    assert len(batches) == 6
    weights = np.concatenate([batches[i]["weight"] for i in range(6)])
    assert weights.sum() == 355
    kept = np.concatenate([batches[i]["image"] for i in range(6)])[weights == 1]
    assert len({picture.tobytes() for picture in kept}) == 355


def one_device():
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def test_batches_reach_the_devices_from_any_step_on(digits):
    sharding = jax.sharding.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    stream = pipeline.on_devices(batches_of(digits[0]), sharding, start=30)
    for step in (30, 31):
        batch = next(stream)
        assert len(batch["image"].addressable_shards) == 8
        assert_same({name: np.asarray(array) for name, array in batch.items()}, batches_of(digits[0])[step])
    stream.close()


def test_a_cpu_takes_the_images_of_a_batch_without_copying_them(digits):
    made = [batches_of(digits[0], batch_size=size)[0]["image"] for size in range(1, 9)]
    for batch in made:
        assert jax.device_put(batch, jax.devices()[0]).unsafe_buffer_pointer() == batch.ctypes.data


def test_the_number_of_workers_changes_nothing(digits):
    streams = [pipeline.on_devices(batches_of(digits[0]), one_device(), workers=workers) for workers in (1, 2, 7)]
    for _ in range(9):
        one, *others = (jax.device_get(next(stream)) for stream in streams)
        for other in others:
            assert_same(one, other)
    for stream in streams:
        stream.close()


def test_an_evaluation_ends_after_its_last_batch(digits):
    batches = pipeline.EvalBatches(digits[1], augmentation.eval_transforms(Augmentation(), 8), 64)
    stream = list(pipeline.on_devices(batches, one_device(), workers=3))
    assert sum(float(batch["weight"].sum()) for batch in stream) == 355


def test_an_example_that_cannot_be_used_is_named():
    source = Source(Numbered(5), ("a", "b"), 1, mirrors=False)
    with pytest.raises(DataError, match=r"^[2-4] has the label [2-4], and there are 2 classes; choose other splits by"):
        next(pipeline.on_devices(pipeline.TrainBatches(source, (geometry.Resize(1),), 8, seed=0), one_device()))


def test_a_large_jpeg_is_seen_as_if_it_were_decoded_whole():
    """Views of a photograph, and of its four-fold enlargement, which is decoded small."""
    photograph = load_sample_images().images[1]
    large = pixels.resize(photograph, 4 * 427, 4 * 640)
    jpeg = io.BytesIO()
    Image.fromarray(large).save(jpeg, "JPEG", quality=95)
    example = {"image": jpeg.getvalue(), "label": 0, "name": "large"}
    for view in (geometry.Resize(100), geometry.CentreCrop(64), geometry.RandomResizedCrop(32)):
        for seed in range(5):
            source = Source([example], ("a",), 3, mirrors=False)
            seen, _ = loading.load(source, 0, [view], np.random.default_rng(seed))
            whole = view(pixels.decode(example["image"], 3), np.random.default_rng(seed))
            assert abs(seen.astype(int) - whole).mean() < (0.3 if isinstance(view, geometry.CentreCrop) else 3)


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
