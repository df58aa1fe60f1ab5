"""The pictures that a user names on the command line, read one by one."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flaxnets.data.folder import EXTENSIONS, images_in
from flaxnets.data.loading import transformed
from flaxnets.errors import DataError, printable
from flaxnets.tools.classifier import Classifier

STANDARD_INPUT = "-"


def files_of(names: Sequence[str]) -> Iterator[str]:
    """The files that a user means, as they come: files, all images in folders, and for `-` a name a line of input.

    A file that does not exist is passed on, and found to be broken. Raises DataError for a folder without images.
    """
    for name in names:
        if name == STANDARD_INPUT:
            lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
            yield from (os.fsdecode(line) for line in lines if line)
        elif os.path.isdir(name):
            images = images_in(Path(name))
            first = next(images, None)
            if first is None:
                raise DataError(
                    f"There is no image in {printable(name)}; images end in {', '.join(EXTENSIONS)}. Give another."
                )
            yield from itertools.chain([first], images)
        else:
            yield name


def loader(network: Classifier) -> Callable[[str], tuple[np.ndarray, int | None]]:
    """How a file is read for a network: its pixels [image_size, image_size, channels], and its class where known.

    The class is known where the file is in a folder with the name of one. Raises OSError or BrokenImageError.
    """
    labels = {name: number for number, name in enumerate(network.class_names)}
    transforms, fixed = network.transforms, np.random.default_rng(0)

    def load(file: str) -> tuple[np.ndarray, int | None]:
        with open(file, "rb", buffering=0) as opened:
            encoded = opened.read()
        pixels = transformed(encoded, network.channels, transforms, fixed)
        return pixels, labels.get(os.path.basename(os.path.dirname(os.path.abspath(file))))

    return load
