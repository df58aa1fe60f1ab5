"""From a decoded image to the pixels that the network sees: random for training, fixed for testing."""

import dataclasses
import math
from typing import Protocol

import numpy as np
from PIL import Image


class Transform(Protocol):
    """An image and a source of randomness -> an image."""

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Transform one image; fixed transforms ignore `random`."""
        ...


@dataclasses.dataclass(frozen=True)
class Resize:
    """The whole image, stretched to `size` x `size` pixels."""

    size: int

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Resize one image of any size."""
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR)


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Move the image by up to `fraction` of its size in both directions; what comes in from outside is black.

    Source: the "pad by 4, crop 32" of CIFAR-10, He et al. 2015, arXiv:1512.03385, section 4.2.
    """

    fraction: float = 1 / 8

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Shift one image; its size stays."""
        reach = round(self.fraction * image.width), round(self.fraction * image.height)
        left, top = (int(random.integers(-pixels, pixels + 1)) for pixels in reach)
        return image.crop((left, top, left + image.width, top + image.height))


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirror the image from left to right, one time in two."""

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Flip one image, or not."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, stretched to `size` x `size` pixels.

    The part covers a fraction of the area drawn evenly from `scale`, with width / height drawn log-evenly from `ratio`.
    Source: Szegedy et al. 2014, arXiv:1409.4842, section 6.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Crop and resize one image of any size."""
        left, top, width, height = self.box(image.width, image.height, random)
        box = (left, top, left + width, top + height)
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)

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
class CenterCrop:
    """The central square that covers `ratio` of the shorter side, resized to `size` x `size` pixels.

    The usual test view of ImageNet: resize the shorter side to 256, crop 224 (224 / 256 = .875).
    """

    size: int
    ratio: float = 0.875

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Crop and resize one image of any size."""
        side = self.ratio * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)


def train_transforms(augmentation: str, size: int, *, flip: bool) -> tuple[Transform, ...]:
    """What a training image goes through; `augmentation` is `shift` or `random_resized_crop`."""
    placed = (Resize(size), RandomShift()) if augmentation == "shift" else (RandomResizedCrop(size),)
    return (*placed, RandomFlip()) if flip else placed


def eval_transforms(augmentation: str, size: int) -> tuple[Transform, ...]:
    """What a test image goes through, where training images go through `augmentation`."""
    return (Resize(size),) if augmentation == "shift" else (CenterCrop(size),)
