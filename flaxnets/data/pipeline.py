"""Batches of decoded, transformed images: batch k of a host is a pure function of (seed, k, host)."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from grain.sources import RandomAccessDataSource

from flaxnets.data.augmentation import Transform, View
from flaxnets.data.pixels import EncodedImage, decode, resize, with_channels
from flaxnets.data.sources import Source
from flaxnets.errors import DataError

Example = dict[str, np.ndarray | np.generic]


@dataclasses.dataclass(frozen=True)
class _Decode(grain.transforms.RandomMap):
    """Encoded example -> uint8 pixels [h, w, c] and label; the randomness is Grain's, a function of (seed, index)."""

    channels: int
    num_classes: int
    transforms: tuple[Transform, ...]

    def random_map(self, element: dict, rng: np.random.Generator) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride] (Grain declares None)
        if not 0 <= element["label"] < self.num_classes:
            raise DataError(
                f"{element['name']} has the label {element['label']}, and there are {self.num_classes} classes; choose "
                "another split by --data.train and --data.test, or mend the data."
            )
        try:
            pixels = self._pixels(element["image"], rng)
        except ValueError as error:
            raise DataError(
                f"Cannot use {element['name']}: {error}. Mend or remove it; `flaxnets check-data` lists all such files."
            ) from error
        return {"image": pixels, "label": np.int32(element["label"]), "weight": np.float32(element.get("weight", 1))}

    def _pixels(self, image: bytes | np.ndarray, random: np.random.Generator) -> np.ndarray:
        first, *others = self.transforms
        if isinstance(image, np.ndarray):
            pixels = first(with_channels(image, self.channels), random)
        elif isinstance(first, View):
            pixels = _decode_view(EncodedImage(image), self.channels, first, random)
        else:
            pixels = first(decode(image, self.channels), random)
        for transform in others:
            pixels = transform(pixels, random)
        return pixels


def _decode_view(image: EncodedImage, channels: int, view: View, random: np.random.Generator) -> np.ndarray:
    """`view(decode(image))`, decoding a large JPEG at the smallest size that holds as many pixels as are wanted."""
    box = view.box(image.width, image.height, random)
    shrink = next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or min(box[2:]) >= shrink * view.size)
    pixels = image.decode(channels, shrink)
    # Where the decoder could not shrink, the ratio is 1.
    across, down = pixels.shape[1] / image.width, pixels.shape[0] / image.height
    left, right = round(box[0] * across), round((box[0] + box[2]) * across)
    top, bottom = round(box[1] * down), round((box[1] + box[3]) * down)
    return resize(pixels[top:bottom, left:right], view.size, view.size)


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
    host: int = 0,
    hosts: int = 1,
) -> grain.MapDataset:
    """Endless training batches by number, each epoch in an order of its own.

    Args:
      source: the training split.
      transforms: applied to each decoded image, in order; they must yield one size.
      batch_size: images in a batch over all hosts; divisible by `hosts`.
      seed: of order and transforms.
      host, hosts: batches hold the `host`-th of `hosts` equal parts of each global batch.

    Returns:
      A dataset whose element k is batch k: `image` uint8 [b, h, w, c], `label` int32 [b], `weight` float32 [b] of 1.
    """
    examples = grain.MapDataset.source(source.examples).seed(seed).shuffle().repeat()
    decoded = examples.random_map(_Decode(source.channels, len(source.class_names), tuple(transforms)))
    return decoded.batch(batch_size // hosts)[host::hosts]


def eval_batches(
    source: Source, transforms: Sequence[Transform], batch_size: int, *, host: int = 0, hosts: int = 1
) -> grain.MapDataset:
    """Every example once, in order; the last batch is filled up with examples of weight 0. As `train_batches`."""
    examples = grain.MapDataset.source(_Padded(source.examples, batch_size)).seed(0)
    decoded = examples.random_map(_Decode(source.channels, len(source.class_names), tuple(transforms)))
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
    decode = _Decode(source.channels, len(source.class_names), tuple(transforms))
    random = np.random.default_rng(0)
    sums = np.zeros((2, source.channels))
    chosen = range(0, count, math.ceil(count / most))
    for index in chosen:
        pixels = decode.random_map(source.examples[index], random)["image"].astype(np.float64) / 255
        sums += pixels.mean((0, 1)), np.square(pixels).mean((0, 1))
    mean, square = sums / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))  # a channel that never changes is not divided by 0
    return tuple(map(float, mean)), tuple(map(float, std))
