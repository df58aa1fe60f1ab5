"""Random changes of brightness, contrast, saturation and hue, and pixels as Pillow's images and back."""

import dataclasses

import numpy as np
from PIL import Image, ImageEnhance


@dataclasses.dataclass(frozen=True)
class ColourJitter:
    """Change brightness, contrast, saturation and hue, each by a random amount, in random order.

    Args:
      brightness, contrast, saturation: x draws a factor evenly from [max(0, 1 - x), 1 + x]; 1 changes nothing.
      hue: x draws a turn of the colour circle evenly from [-x, x], at most 1/2.

    Grey images have neither saturation nor hue. Source: Howard 2013, arXiv:1312.5402, for all but hue; ranges and order
    are torchvision's.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Change uint8 pixels [h, w, c]; their shape stays."""
        image = to_image(pixels)
        for change in random.permutation(4):
            if change == 3:
                image = turn_hue(image, random.uniform(-self.hue, self.hue))
                continue
            kind, reach = (
                (ImageEnhance.Brightness, self.brightness),
                (ImageEnhance.Contrast, self.contrast),
                (ImageEnhance.Color, self.saturation),
            )[change]
            factor = random.uniform(max(0.0, 1 - reach), 1 + reach)
            image = kind(image).enhance(factor) if reach else image
        return to_pixels(image)


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the colours of an RGB image by a part of the colour circle; a grey image stays."""
    steps = round(turn * 256) % 256
    if image.mode == "L" or not steps:
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(angle + steps) % 256 for angle in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def to_image(pixels: np.ndarray) -> Image.Image:
    """uint8 pixels [h, w, c] -> an image of mode L (c = 1) or RGB (c = 3)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def to_pixels(image: Image.Image) -> np.ndarray:
    """An image of mode L or RGB -> uint8 pixels [h, w, c]."""
    return np.asarray(image).reshape(image.height, image.width, -1)
