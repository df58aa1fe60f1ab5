"""Encoded images to pixels, and pixels to another size. Pixels are uint8 [h, w, c], c = 1 (grey) or 3 (RGB)."""

import contextlib
import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 89_478_485  # Pillow's own idea of what no honest image exceeds: 256 MB of RGB
MAX_SCANS = 100  # of a progressive JPEG, where 10 are usual: each of them costs a pass over all pixels
ORIENTATION = 0x0112  # the EXIF tag
NOT_PLAIN = (b"\xe1", b"\xc2", b"\xc6", b"\xca", b"\xff", b"")  # EXIF or XMP, three kinds of progressive, filling, end
# How to bring an image upright by its EXIF orientation: (transpose, rows, columns)
UPRIGHT = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}

# Pillow warns of what is refused below, and of damaged EXIF data, which nobody needs to hear of.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
cv2.setNumThreads(0)  # the loader's threads keep all cores busy


class BrokenImageError(ValueError):
    """Bytes that are no image, or one that is damaged or unreasonable: what is wrong with it, in a clause."""


class EncodedImage:
    """An image file, of which only the header is read yet.

    Args:
      encoded: bytes of a JPEG, PNG, WebP, BMP or GIF file; of an animation, the first frame counts.

    Attributes:
      height, width: in pixels, as one sees it: turned as its EXIF orientation says.

    Raises:
      BrokenImageError: what is wrong with the bytes, also in `decode`.
    """

    def __init__(self, encoded: bytes):
        if not encoded:
            raise BrokenImageError("the file is empty")
        self._encoded = encoded
        self._upright = UPRIGHT[1]
        self._image: Image.Image | None = None  # Pillow's, where it is needed
        if plain := _size_of_plain_jpeg(encoded):
            self._size = plain  # width, height
        else:
            self._image = _open(encoded)
            self._size = self._image.size
            if self._image.info.get("progressive") and encoded.count(b"\xff\xda") > MAX_SCANS:
                raise BrokenImageError(f"it is a JPEG of more than {MAX_SCANS} scans")
            with contextlib.suppress(Exception):  # damaged EXIF data are no reason to refuse an image
                self._upright = UPRIGHT.get(self._image.getexif().get(ORIENTATION, 1), UPRIGHT[1])
        width, height = self._size
        if width * height > MAX_PIXELS:
            raise BrokenImageError(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
        self.height, self.width = (width, height) if self._upright[0] else (height, width)

    def decode(self, channels: int, shrink: int = 1, draft: bool = False) -> np.ndarray:
        """Pixels [h, w, channels]; transparent parts are white, grey levels of 16 bits become 8.

        Args:
          channels: 1 for grey, 3 for RGB.
          shrink: 1, 2, 4 or 8. A JPEG is decoded to 1/shrink of its size, rounded up, which costs far less than
            decoding all of it; other formats and rare kinds of JPEG ignore it.
          draft: 7 % faster, for pixels that are resized at once: a JPEG's colours, of which there are fewer than
            pixels, are repeated instead of interpolated.
        """
        pixels = None
        if not self._image or (self._image.format in ("JPEG", "MPO") and self._image.mode in ("L", "RGB")):
            width, height = (-(-side // shrink) for side in self._size)
            # It is strict; Pillow forgives what people's viewers forgive, but not missing pixels.
            with contextlib.suppress(ValueError):
                pixels = simplejpeg.decode_jpeg(
                    self._encoded,
                    "GRAY" if channels == 1 else "RGB",
                    min_height=height,
                    min_width=width,
                    fastupsample=draft,
                )
        if pixels is None:
            pixels = self._decode_by_pillow(channels)
        transpose, rows, columns = self._upright
        if transpose:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[::rows, ::columns]

    def _decode_by_pillow(self, channels: int) -> np.ndarray:
        mode = "L" if channels == 1 else "RGB"
        image = self._image or _open(self._encoded)
        if image.size != self._size:
            raise BrokenImageError("its header contradicts itself")
        try:
            if image.mode.startswith("I"):  # 16 bits a pixel
                image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert(mode)).reshape(image.height, image.width, channels)
        except Exception as error:  # as above
            raise BrokenImageError(f"it cannot be decoded: {error}") from error


def _open(encoded: bytes) -> Image.Image:
    """An image of which Pillow has read the header."""
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BrokenImageError(f"it has more than {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise BrokenImageError("it is no JPEG, PNG, WebP, BMP or GIF image") from error
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise BrokenImageError(f"its header is damaged: {error}") from error


def _size_of_plain_jpeg(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG without EXIF or XMP data, neither progressive nor CMYK; None for all others.

    Pillow takes 20 microseconds, in which no other thread runs, to find out as much, this takes 5.
    """
    place = 2
    while (marker := encoded[place : place + 2]) != b"\xff\xda":  # there the pixels begin
        if encoded[:2] != b"\xff\xd8" or marker[:1] != b"\xff" or marker[1:] in NOT_PLAIN:
            return None
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4])
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    return (int(width), int(height)) if colours in ("YCbCr", "Gray") else None


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """Pixels [h, w, channels] of an image file, as `EncodedImage.decode`. Raises BrokenImageError."""
    return EncodedImage(encoded).decode(channels)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grey or RGB pixels [h, w, 1 or 3] as [h, w, channels]."""
    if pixels.shape[2] == channels:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else pixels.repeat(3, axis=2)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resizing, [h, w, c] -> [height, width, c], about three times as fast as Pillow's.

    Shrinking by s, Pillow weighs pixels by a triangle of width s. Here a blur by (a, 1 - 2a, a) precedes bilinear
    sampling; with a = (s - 1) / 4 the two are equal at s = 1 and s = 2, and near between. Beyond 2, means over areas
    bring the image to twice the wanted size first.
    """
    channels = pixels.shape[2]
    areas = min(pixels.shape[0], 2 * height), min(pixels.shape[1], 2 * width)
    blurs = _blur(pixels.shape[0], height), _blur(pixels.shape[1], width)
    if areas != pixels.shape[:2]:
        pixels = cv2.resize(pixels, areas[::-1], interpolation=cv2.INTER_AREA)
    if any(blurs):
        rows, columns = (np.array([a, 1 - 2 * a, a], np.float32) for a in blurs)
        pixels = cv2.sepFilter2D(pixels, -1, columns, rows, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def _blur(before: int, after: int) -> float:
    """The outer weight of the blur that one direction needs; 1/6 beyond 2 was fitted to photographs."""
    scale = before / after
    return max(0.0, (scale - 1) / 4) if scale <= 2 else 1 / 6
