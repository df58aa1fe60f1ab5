"""The operations of the augmentation policies on Pillow images, and how far each of them goes."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps


class Operation(NamedTuple):
    """One operation and its range.

    Attributes:
      apply: of an image of mode L or RGB and a value; 0 changes nothing where there is a range.
      widest: the value at full magnitude; 0 where the operation knows no magnitude.
      signed: whether the value may be negative as well.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    widest: float = 0.0
    signed: bool = False

    def at(self, image: Image.Image, magnitude: float, *, negative: bool = False) -> Image.Image:
        """Apply to an image with a magnitude of [0, 1], in the other direction if `negative` and there is one."""
        return self.apply(image, self.widest * (-magnitude if negative and self.signed else magnitude))


def identity(image: Image.Image, _: float) -> Image.Image:
    """The image itself."""
    return image


def shear_x(image: Image.Image, slope: float) -> Image.Image:
    """Shift each row by `slope` times its number."""
    return _affine(image, (1, slope, 0, 0, 1, 0))


def shear_y(image: Image.Image, slope: float) -> Image.Image:
    """Shift each column by `slope` times its number."""
    return _affine(image, (1, 0, 0, slope, 1, 0))


def translate_x(image: Image.Image, pixels: float) -> Image.Image:
    """Shift by a whole number of pixels to the right."""
    return _affine(image, (1, 0, -int(pixels), 0, 1, 0))


def translate_y(image: Image.Image, pixels: float) -> Image.Image:
    """Shift by a whole number of pixels downwards."""
    return _affine(image, (1, 0, 0, 0, 1, -int(pixels)))


def translate_x_share(image: Image.Image, share: float) -> Image.Image:
    """Shift by a share of the width to the right."""
    return translate_x(image, share * image.width)


def translate_y_share(image: Image.Image, share: float) -> Image.Image:
    """Shift by a share of the height downwards."""
    return translate_y(image, share * image.height)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate around the centre, counter-clockwise."""
    return image.rotate(degrees, Image.Resampling.BILINEAR)


def brightness(image: Image.Image, change: float) -> Image.Image:
    """Multiply by 1 + change."""
    return ImageEnhance.Brightness(image).enhance(1 + change)


def saturation(image: Image.Image, change: float) -> Image.Image:
    """Move away from grey by 1 + change."""
    return ImageEnhance.Color(image).enhance(1 + change)


def contrast(image: Image.Image, change: float) -> Image.Image:
    """Move away from the mean brightness by 1 + change."""
    return ImageEnhance.Contrast(image).enhance(1 + change)


def sharpness(image: Image.Image, change: float) -> Image.Image:
    """Move away from a smoothed image by 1 + change."""
    return ImageEnhance.Sharpness(image).enhance(1 + change)


def posterize(image: Image.Image, bits: float) -> Image.Image:
    """Clear the lowest `bits` of the eight bits, rounded to a whole number."""
    return ImageOps.posterize(image, 8 - round(bits))


def solarize(image: Image.Image, depth: float) -> Image.Image:
    """Invert all values from 256 - depth on."""
    return ImageOps.solarize(image, 256 - round(depth))


def auto_contrast(image: Image.Image, _: float) -> Image.Image:
    """Stretch each channel so that it fills [0, 255]."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, _: float) -> Image.Image:
    """Make the histogram of each channel flat."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, _: float) -> Image.Image:
    """Turn each value v into 255 - v."""
    return ImageOps.invert(image)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """(x, y) shows what was at (a x + b y + c, d x + e y + f); what comes from outside is black."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


# The 14 operations of RandAugment (arXiv:1909.13719, figure 2) with torchvision's ranges, which are AutoAugment's
# (arXiv:1805.09501, appendix) made symmetrical, so that magnitude 0 is the image itself and more is always more.
RAND_AUGMENT = {
    #                      operation          at full magnitude   both ways
    "identity":      Operation(identity),
    "shear_x":       Operation(shear_x,           0.3,            True),
    "shear_y":       Operation(shear_y,           0.3,            True),
    "translate_x":   Operation(translate_x_share, 150 / 331,      True),
    "translate_y":   Operation(translate_y_share, 150 / 331,      True),
    "rotate":        Operation(rotate,            30,             True),
    "brightness":    Operation(brightness,        0.9,            True),
    "saturation":    Operation(saturation,        0.9,            True),
    "contrast":      Operation(contrast,          0.9,            True),
    "sharpness":     Operation(sharpness,         0.9,            True),
    "posterize":     Operation(posterize,         4),
    "solarize":      Operation(solarize,          256),
    "auto_contrast": Operation(auto_contrast),
    "equalize":      Operation(equalize),
}  # fmt: skip

# AutoAugment knows inversion as well.
AUTO_AUGMENT = {**RAND_AUGMENT, "invert": Operation(invert)}

# The wide ranges of TrivialAugment (arXiv:2103.10158); shifts are in pixels, whatever the image's size.
TRIVIAL_AUGMENT = {
    **RAND_AUGMENT,
    "shear_x":       Operation(shear_x,           0.99,           True),
    "shear_y":       Operation(shear_y,           0.99,           True),
    "translate_x":   Operation(translate_x,       32,             True),
    "translate_y":   Operation(translate_y,       32,             True),
    "rotate":        Operation(rotate,            135,            True),
    "brightness":    Operation(brightness,        0.99,           True),
    "saturation":    Operation(saturation,        0.99,           True),
    "contrast":      Operation(contrast,          0.99,           True),
    "sharpness":     Operation(sharpness,         0.99,           True),
    "posterize":     Operation(posterize,         6),
}  # fmt: skip
