"""From decoded pixels, uint8 [h, w, c], to those that the network sees: random for training, fixed for testing."""

import abc
import dataclasses
import math
from typing import Protocol

import cv2
import numpy as np

from flaxnets.data import pixels as px


class Transform(Protocol):
    """Pixels and a source of randomness -> pixels."""

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Transform one image; fixed transforms ignore `random`."""
        ...


@dataclasses.dataclass(frozen=True)
class View(abc.ABC):
    """A part of the image, stretched to `size` x `size` pixels; of a large JPEG, no more is decoded than that takes."""

    size: int

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Crop and resize one image of any size."""
        left, top, width, height = self.box(pixels.shape[1], pixels.shape[0], random)
        return px.resize(pixels[top : top + height, left : left + width], self.size, self.size)

    @abc.abstractmethod
    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part, in pixels: inside the image, whatever its shape."""


@dataclasses.dataclass(frozen=True)
class Resize(View):
    """The whole image, stretched to `size` x `size` pixels."""

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """All of it."""
        return 0, 0, width, height


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Move the image by up to `fraction` of its size in both directions; what comes in from outside is black.

    Source: the "pad by 4, crop 32" of CIFAR-10, He et al. 2015, arXiv:1512.03385, section 4.2.
    """

    fraction: float = 1 / 8

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Shift one image; its size stays."""
        height, width = pixels.shape[:2]
        across, down = round(self.fraction * width), round(self.fraction * height)
        left, top = int(random.integers(2 * across + 1)), int(random.integers(2 * down + 1))
        padded = np.pad(pixels, ((down, down), (across, across), (0, 0)))
        return padded[top : top + height, left : left + width]


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirror the image from left to right, one time in two."""

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Flip one image, or not."""
        return cv2.flip(pixels, 1).reshape(pixels.shape) if random.random() < 0.5 else pixels


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(View):
    """A random part of the image, stretched to `size` x `size` pixels.

    The part covers a fraction of the area drawn evenly from `scale`, with width / height drawn log-evenly from `ratio`.
    Source: Szegedy et al. 2014, arXiv:1409.4842, section 6.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part, in pixels: inside the image, whatever its shape."""
        for _ in range(10):
            area = random.uniform(*self.scale) * width * height
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < part_width <= width and 0 < part_height <= height:
                left = int(random.integers(width - part_width + 1))
                top = int(random.integers(height - part_height + 1))
                return left, top, part_width, part_height
        # Long and narrow images: the largest central part of an allowed ratio.
        part_width = min(width, max(1, round(height * self.ratio[1])))
        part_height = min(height, max(1, round(width / self.ratio[0])))
        return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height


@dataclasses.dataclass(frozen=True)
class CenterCrop(View):
    """The central square that covers `ratio` of the shorter side, resized to `size` x `size` pixels.

    The usual test view of ImageNet: resize the shorter side to 256, crop 224 (224 / 256 = .875).
    """

    ratio: float = 0.875

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """The central square, to the nearest pixel."""
        side = max(1, round(self.ratio * min(width, height)))
        return (width - side) // 2, (height - side) // 2, side, side


def train_transforms(augmentation: str, size: int, *, flip: bool) -> tuple[Transform, ...]:
    """What a training image goes through; `augmentation` is `shift` or `random_resized_crop`."""
    placed = (Resize(size), RandomShift()) if augmentation == "shift" else (RandomResizedCrop(size),)
    return (*placed, RandomFlip()) if flip else placed


def eval_transforms(augmentation: str, size: int) -> tuple[Transform, ...]:
    """What a test image goes through, where training images go through `augmentation`."""
    return (Resize(size),) if augmentation == "shift" else (CenterCrop(size),)
