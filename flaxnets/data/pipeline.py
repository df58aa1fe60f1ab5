"""Batches of decoded, transformed images: batch k of a host is a pure function of (seed, k, host)."""

import dataclasses
import functools
import math
import sys
from collections.abc import Generator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from grain.sources import RandomAccessDataSource

from flaxnets.data.augmentation import Transform
from flaxnets.data.loading import default_workers, load
from flaxnets.data.sources import Source

Batch = dict[str, np.ndarray]


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

    def indices(self, number: int) -> list[int]:
        """Which examples batch `number` holds, over all hosts."""
        first = number * self.batch_size
        return [self._example(position)[1] for position in range(first, first + self.batch_size)]

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
            images = _aligned((len(examples), *pixels.shape))
        images[row] = pixels
    return {"image": images, "label": labels, "weight": np.ones(len(labels), np.float32)}


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An uint8 array that begins at a multiple of 64 bytes: JAX puts it on a CPU's device without copying it."""
    size = math.prod(shape)
    room = np.empty(size + 63, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].reshape(shape)


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
