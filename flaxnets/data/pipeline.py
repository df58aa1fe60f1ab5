"""Batches of decoded, transformed images: batch k of a host is a pure function of (seed, k, host)."""

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Generator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from grain.sources import RandomAccessDataSource

from flaxnets.data.augmentation import Transform
from flaxnets.data.geometry import View
from flaxnets.data.pixels import BrokenImageError, EncodedImage, decode, resize, with_channels
from flaxnets.data.sources import Source
from flaxnets.errors import DataError, printable

Batch = dict[str, np.ndarray]
MOST_WORKERS = 16  # beyond, threads wait for Python's lock more than they decode


@dataclasses.dataclass(frozen=True)
class TrainBatches(RandomAccessDataSource[Batch]):
    """Endless training batches by number; each epoch has an order of its own.

    Element k is batch k: `image` uint8 [b, h, w, c], `label` int32 [b], `weight` float32 [b] of 1.

    Args:
      source: the training split.
      transforms: applied to each decoded image, in order; they must yield one size.
      batch_size: images in a batch over all hosts; divisible by `hosts`.
      seed: of order and transforms.
      host, hosts: batches hold the `host`-th of `hosts` equal parts of each global batch.
      repeats: how often an image comes in a row, transformed anew: repeated augmentation, Hoffer et al. 2019,
        arXiv:1901.09335.
    """

    source: Source
    transforms: tuple[Transform, ...]
    batch_size: int
    seed: int
    host: int = 0
    hosts: int = 1
    repeats: int = 1

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> Batch:
        return _batch(self.source, self.transforms, [self._example(p) for p in _positions(self, number)], self.seed)

    def _example(self, position: int) -> tuple[int, int]:
        count = len(self.source.examples)
        epoch, place = divmod(position // self.repeats, count)
        return position, int(_order(self.seed, epoch, count)[place])


@dataclasses.dataclass(frozen=True)
class EvalBatches(RandomAccessDataSource[Batch]):
    """Every example once, in order; the last batch is filled up by black images of weight 0. As `TrainBatches`."""

    source: Source
    transforms: tuple[Transform, ...]
    batch_size: int
    host: int = 0
    hosts: int = 1

    def __len__(self) -> int:
        return math.ceil(len(self.source.examples) / self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        if not 0 <= number < len(self):
            raise IndexError(number)
        count, positions = len(self.source.examples), _positions(self, number)
        batch = _batch(self.source, self.transforms, [(p, min(p, count - 1)) for p in positions], seed=0)
        filled = np.asarray(positions) >= count
        for array in batch.values():
            array[filled] = 0
        return batch


def _positions(batches: TrainBatches | EvalBatches, number: int) -> range:
    """Where the host's part of batch `number` lies in the endless row of examples."""
    rows = batches.batch_size // batches.hosts
    first = number * batches.batch_size + batches.host * rows
    return range(first, first + rows)


@functools.lru_cache(maxsize=2)  # batches of two epochs are made at once where they meet
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The examples' order in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _batch(source: Source, transforms: Sequence[Transform], examples: Sequence[tuple[int, int]], seed: int) -> Batch:
    """Examples by (position, index); what is random in one is a function of (seed, position)."""
    images = np.empty(0, np.uint8)
    labels = np.empty(len(examples), np.int32)
    for row, (position, index) in enumerate(examples):
        random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, position]))
        pixels, labels[row] = load(source, index, transforms, random)
        if row == 0:
            images = np.empty((len(examples), *pixels.shape), np.uint8)
        images[row] = pixels
    return {"image": images, "label": labels, "weight": np.ones(len(labels), np.float32)}


def load(
    source: Source, index: int, transforms: Sequence[Transform], random: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Pixels [h, w, c] and label of an example. Raises DataError that names it if it cannot be read or decoded."""
    try:
        example = source.examples[index]
    except OSError as error:
        raise DataError(
            f"Cannot read {printable(error.filename or f'example {index}')}: {error.strerror or error}; bring it back, "
            "or see what else is broken by `flaxnets check-data`."
        ) from error
    label, count = example["label"], len(source.class_names)
    if not 0 <= label < count:
        raise DataError(
            f"{example['name']} has the label {label}, and there are {count} classes; choose other splits by "
            "--data.train and --data.test, or mend the data."
        )
    try:
        pixels = first_view(example["image"], source.channels, transforms[0], random)
    except BrokenImageError as error:
        raise DataError(
            f"Cannot use {example['name']}: {error}. Mend or remove it; `flaxnets check-data` lists all such."
        ) from error
    for transform in transforms[1:]:
        pixels = transform(pixels, random)
    return pixels, label


def first_view(image: bytes | np.ndarray, channels: int, first: Transform, random: np.random.Generator) -> np.ndarray:
    """`first` of the decoded image. Of a large JPEG, no more is decoded than the view has pixels."""
    if isinstance(image, np.ndarray):
        return first(with_channels(image, channels), random)
    if not isinstance(first, View):
        return first(decode(image, channels), random)
    encoded = EncodedImage(image)
    left, top, width, height = first.box(encoded.width, encoded.height, random)
    shrink = next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or min(width, height) >= shrink * first.size)
    pixels = encoded.decode(channels, shrink, draft=True)
    # Where the decoder could not shrink, the ratios are 1.
    down, across = pixels.shape[0] / encoded.height, pixels.shape[1] / encoded.width
    rows = slice(round(top * down), round((top + height) * down))
    columns = slice(round(left * across), round((left + width) * across))
    return resize(pixels[rows, columns], first.size, first.size)


def default_workers() -> int:
    """Threads that decode images: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def on_devices(
    batches: TrainBatches | EvalBatches, sharding: jax.sharding.Sharding, start: int = 0, workers: int | None = None
) -> Generator[dict[str, jax.Array]]:
    """The batches from number `start` on, made ahead by threads, as arrays that lie across the devices.

    Args:
      batches: by number.
      sharding: how a batch lies.
      start: number of the first.
      workers: threads that make batches; they change nothing but speed.
    """

    def put(batch: Batch) -> dict[str, jax.Array]:
        return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

    workers = workers or default_workers()
    read_ahead = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers + 2)
    made: Any = grain.MapDataset.source(batches)[start:].to_iter_dataset(read_ahead).map(put)
    iterator = iter(grain.experimental.ThreadPrefetchIterDataset(made, prefetch_buffer_size=2))
    try:
        yield from iterator
    finally:
        iterator.close()


def pixel_statistics(
    source: Source, transforms: Sequence[Transform], most: int = 512
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, images in [0, 1], over up to `most` examples evenly spread."""
    count = len(source.examples)
    random = np.random.default_rng(0)
    sums = np.zeros((2, source.channels))
    chosen = range(0, count, math.ceil(count / most))
    for index in chosen:
        pixels = load(source, index, transforms, random)[0].astype(np.float64) / 255
        sums += pixels.mean((0, 1)), np.square(pixels).mean((0, 1))
    mean, square = sums / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))  # a channel that never changes is not divided by 0
    return tuple(map(float, mean)), tuple(map(float, std))
