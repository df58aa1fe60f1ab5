"""Batches of decoded, transformed images: batch k of a host is a pure function of (seed, k, host)."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from grain.sources import RandomAccessDataSource

from flaxnets.data import pixels
from flaxnets.data.augmentation import Transform
from flaxnets.data.sources import Source

Example = dict[str, np.ndarray | np.generic]


@dataclasses.dataclass(frozen=True)
class _Decode(grain.transforms.RandomMap):
    """Encoded example -> uint8 pixels [h, w, c] and label; the randomness is Grain's, a function of (seed, index)."""

    channels: int
    transforms: tuple[Transform, ...]

    def random_map(self, element: dict, rng: np.random.Generator) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride] (Grain declares None)
        image = pixels.decode(element["image"], self.channels)
        for transform in self.transforms:
            image = transform(image, rng)
        return {
            "image": np.ascontiguousarray(image),
            "label": np.int32(element["label"]),
            "weight": np.float32(element.get("weight", 1)),
        }


@dataclasses.dataclass(frozen=True)
class _Padded:
    """Examples repeated to a whole number of batches; the repeats weigh nothing."""

    examples: RandomAccessDataSource[dict]
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch_size) * self.batch_size

    def __getitem__(self, index: int) -> dict:
        count = len(self.examples)
        return {**self.examples[index % count], "weight": float(index < count)}


def train_batches(
    source: Source,
    transforms: Sequence[Transform],
    batch_size: int,
    *,
    seed: int,
    repeats: int = 1,
    host: int = 0,
    hosts: int = 1,
) -> grain.MapDataset:
    """Endless training batches by number, each epoch in an order of its own.

    Args:
      source: the training split.
      transforms: applied to each decoded image, in order; they must yield one size.
      batch_size: images in a batch over all hosts; divisible by `hosts`.
      seed: of order and transforms.
      repeats: how often each image comes in succession, transformed anew each time: repeated augmentation (Hoffer et
        al. 2019, arXiv:1901.09335).
      host, hosts: batches hold the `host`-th of `hosts` equal parts of each global batch.

    Returns:
      A dataset whose element k is batch k: `image` uint8 [b, h, w, c], `label` int32 [b], `weight` float32 [b] of 1.
    """
    examples = grain.MapDataset.source(source.examples).seed(seed).shuffle().repeat()
    if repeats > 1:
        examples = grain.MapDataset.mix([examples] * repeats).seed(seed)
    decoded = examples.random_map(_Decode(source.channels, tuple(transforms)))
    return decoded.batch(batch_size // hosts)[host::hosts]


def eval_batches(
    source: Source, transforms: Sequence[Transform], batch_size: int, *, host: int = 0, hosts: int = 1
) -> grain.MapDataset:
    """Every example once, in order; the last batch is filled up with examples of weight 0. As `train_batches`."""
    examples = grain.MapDataset.source(_Padded(source.examples, batch_size)).seed(0)
    decoded = examples.random_map(_Decode(source.channels, tuple(transforms)))
    return decoded.batch(batch_size // hosts)[host::hosts]


def on_devices(batches: grain.MapDataset, sharding: jax.sharding.Sharding, start: int = 0) -> Iterator[dict]:
    """The batches from number `start` on, decoded ahead by threads, as arrays that lie across the devices."""
    read_ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    for batch in batches[start:].to_iter_dataset(read_ahead):
        yield {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def pixel_statistics(
    source: Source, transforms: Sequence[Transform], most: int = 512
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, images in [0, 1], over up to `most` examples evenly spread."""
    count = len(source.examples)
    decode = _Decode(source.channels, tuple(transforms))
    random = np.random.default_rng(0)
    sums = np.zeros((2, source.channels))
    chosen = range(0, count, math.ceil(count / most))
    for index in chosen:
        image = decode.random_map(source.examples[index], random)["image"].astype(np.float64) / 255
        sums += image.mean((0, 1)), np.square(image).mean((0, 1))
    mean, square = sums / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))  # a channel that never changes is not divided by 0
    return tuple(map(float, mean)), tuple(map(float, std))
