"""Encoded images -> uint8 pixels [h, w, c], and pixels of another size."""

import io

import numpy as np
from PIL import Image


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """The pixels uint8 [h, w, channels] of an encoded image; `channels` is 1 for grey, 3 for colour."""
    image = Image.open(io.BytesIO(encoded)).convert("L" if channels == 1 else "RGB")
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 pixels [h, w, c] -> [height, width, c], bilinear and antialiased."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, pixels.shape[-1])
