"""Transforms of place: resizing, crops, flips, and boxes that are erased."""

import abc
import dataclasses
import math

import cv2
import numpy as np
from PIL import Image

from flaxnets.data.pixels import resize

# Times the shorter side beyond which a picture is not resized as a whole: a line of pixels would fill the memory.
LONG = 8


@dataclasses.dataclass(frozen=True)
class View(abc.ABC):
    """A part of the image, stretched to `size` x `size` pixels."""

    size: int

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Crop and resize uint8 pixels [h, w, c] of any height and width."""
        left, top, width, height = self.box(pixels.shape[1], pixels.shape[0], random)
        return resize(pixels[top : top + height, left : left + width], self.size, self.size)

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
class CentreCrop:
    """The usual test view of ImageNet: the shorter side resized to `size / ratio` pixels, and the central square of it.

    Pixels equal those of torchvision's presets on Pillow's images to the bit, because published weights were measured
    on them; the ratio is .875 for 224 out of 256. Since version 13, Pillow resizes some tall images by rows first, and
    then differs from itself, and from this, by one level of 256 here and there.
    """

    size: int
    ratio: float = 0.875

    @property
    def shorter(self) -> int:
        """What the shorter side is resized to, in pixels."""
        return max(self.size, round(self.size / self.ratio))

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Resize and crop uint8 pixels [h, w, c] of any height and width."""
        sides = pixels.shape[1], pixels.shape[0]
        resized = [int(self.shorter * side / min(sides)) for side in sides]
        left, top = self._starts(*(side - self.size for side in resized))
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if max(sides) <= LONG * min(sides):
            wide = image.resize((resized[0], sides[1]), Image.Resampling.BILINEAR)
            narrow = wide.crop((left, 0, left + self.size, sides[1]))  # what nobody will see need not be resized again
            tall = narrow.resize((self.size, resized[1]), Image.Resampling.BILINEAR)
            seen = tall.crop((0, top, self.size, top + self.size))
        else:  # the same but for rounding
            across, down = (side / after for side, after in zip(sides, resized, strict=True))
            right, bottom = (left + self.size) * across, (top + self.size) * down
            box = left * across, top * down, min(right, sides[0]), min(bottom, sides[1])
            seen = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        return np.asarray(seen).reshape(self.size, self.size, pixels.shape[2])

    def _starts(self, across: int, down: int) -> tuple[int, int]:
        """First column and row of the square, where so many columns and rows are left over."""
        return round(across / 2), round(down / 2)


@dataclasses.dataclass(frozen=True)
class CornerCrop(CentreCrop):
    """As `CentreCrop`, in a corner of the image: one of the five crops of Krizhevsky et al. 2012, section 4.1."""

    right: bool = False
    bottom: bool = False

    def _starts(self, across: int, down: int) -> tuple[int, int]:
        return across * self.right, down * self.bottom


@dataclasses.dataclass(frozen=True)
class PadAndCrop:
    """The image with `padding` black pixels on each side, cut back to its size at a random place.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2, where it is 4 pixels for images of 32.
    """

    padding: int = 4

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Shift uint8 pixels [h, w, c]; their shape stays."""
        right, down = (int(random.integers(-self.padding, self.padding + 1)) for _ in range(2))
        height, width, _ = pixels.shape
        shifted = np.zeros_like(pixels)
        seen = pixels[max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
        top, left = max(0, -down), max(0, -right)
        shifted[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        return shifted


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirror the image from left to right."""

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Flip uint8 pixels [h, w, c]."""
        return cv2.flip(pixels, 1).reshape(pixels.shape)


@dataclasses.dataclass(frozen=True)
class RandomFlip(Flip):
    """Mirror the image from left to right, one time in two."""

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Flip uint8 pixels [h, w, c], or not."""
        return super().__call__(pixels, random) if random.random() < 0.5 else pixels


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(View):
    """A random part of the image, stretched to `size` x `size` pixels.

    Args:
      size: height and width of the result, in pixels.
      area: range of the part's share of the image, drawn evenly.
      ratio: range of width / height of the part, drawn log-evenly.

    Source: Szegedy et al. 2014, arXiv:1409.4842, section 6.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """A random box; in long and narrow images, the largest central one of an allowed ratio."""
        box = random_box(width, height, self.area, self.ratio, random)
        if box:
            return box
        part_width = min(width, max(1, round(height * self.ratio[1])))
        part_height = min(height, max(1, round(width / self.ratio[0])))
        return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Paint a random box in one colour, the mean of the data set: after normalisation it is 0.

    Args:
      probability: share of the images in which a box is erased.
      colour: what to paint it with, one value of [0, 255] a channel.
      area: range of the box's share of the image, drawn evenly.
      ratio: range of width / height of the box, drawn log-evenly.

    Source: Zhong et al. 2017, arXiv:1708.04896, with torchvision's range of areas (the paper's ends at .4).
    """

    probability: float
    colour: tuple[int, ...]
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Erase a box of uint8 pixels [h, w, c], or none; what was given is not changed."""
        if random.random() >= self.probability:
            return pixels
        box = random_box(pixels.shape[1], pixels.shape[0], self.area, self.ratio, random)
        if not box:
            return pixels
        left, top, width, height = box
        erased = pixels.copy()
        erased[top : top + height, left : left + width] = self.colour
        return erased


def random_box(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of a random box in an image, in pixels; None where ten tries did not fit.

    Args:
      width, height: of the image, in pixels.
      area: range of the box's share of the image, drawn evenly.
      ratio: range of width / height, drawn log-evenly.
      random: where the draws come from.
    """
    for _ in range(10):
        wanted = random.uniform(*area) * width * height
        shape = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(random.integers(width - box_width + 1))
            top = int(random.integers(height - box_height + 1))
            return left, top, box_width, box_height
    return None
