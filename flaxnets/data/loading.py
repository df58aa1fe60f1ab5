"""One example, from an image file's bytes to the pixels that a network sees; and how many threads do that."""

import os
from collections.abc import Sequence

import numpy as np

from flaxnets.data.augmentation import Transform
from flaxnets.data.geometry import CentreCrop, View
from flaxnets.data.pixels import BrokenImageError, EncodedImage, resize, with_channels
from flaxnets.data.sources import Source
from flaxnets.errors import DataError, printable

MOST_WORKERS = 16  # beyond, threads wait for Python's lock more than they decode


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
        return transformed(example["image"], source.channels, transforms, random), label
    except BrokenImageError as error:
        raise DataError(
            f"Cannot use {example['name']}: {error}. Mend or remove it; `flaxnets check-data` lists all such."
        ) from error


def transformed(
    image: bytes | np.ndarray, channels: int, transforms: Sequence[Transform], random: np.random.Generator
) -> np.ndarray:
    """Encoded bytes, or pixels [h, w, c], as pixels [h, w, channels] after all transforms. Raises BrokenImageError."""
    pixels = _first_view(image, channels, transforms[0], random)
    for transform in transforms[1:]:
        pixels = transform(pixels, random)
    return pixels


def _first_view(image: bytes | np.ndarray, channels: int, first: Transform, random: np.random.Generator) -> np.ndarray:
    """`first` of the decoded image. Of a large JPEG, no more is decoded than the view has use for."""
    if isinstance(image, np.ndarray):
        return first(with_channels(image, channels), random)
    encoded = EncodedImage(image)
    if isinstance(first, CentreCrop):
        # Four times as many pixels as are shown: on average a tenth of a level of 256 beside the whole image.
        shrink = _shrink(min(encoded.width, encoded.height), 4 * first.shorter)
        return first(encoded.decode(channels, shrink), random)
    if not isinstance(first, View):
        return first(encoded.decode(channels), random)
    left, top, width, height = first.box(encoded.width, encoded.height, random)
    pixels = encoded.decode(channels, _shrink(min(width, height), first.size), draft=True)
    # Where the decoder could not shrink, the ratios are 1.
    down, across = pixels.shape[0] / encoded.height, pixels.shape[1] / encoded.width
    rows = slice(round(top * down), round((top + height) * down))
    columns = slice(round(left * across), round((left + width) * across))
    return resize(pixels[rows, columns], first.size, first.size)


def _shrink(side: int, least: int) -> int:
    """The strongest of a JPEG decoder's reductions that leaves so many pixels of a side."""
    return next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or side >= shrink * least)


def default_workers() -> int:
    """Threads that decode images: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)
