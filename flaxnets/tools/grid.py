"""A grid of images with captions, as a PNG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 112  # least width of an image in the picture, in pixels
CAPTION, MARGIN = 40, 8  # height below an image and space around it, in pixels


def picture_grid(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> bytes:
    """A PNG file: rows of images, enlarged by a whole number if they are small, with their captions below.

    Args:
      rows: of uint8 pixels [h, w, 1 or 3], all alike, and captions of at most two lines; the first row is the longest.
    """
    height, width, channels = rows[0][0][0].shape
    scale = -(-CELL // width)
    cell = width * scale + MARGIN, height * scale + CAPTION
    grid = Image.new("RGB", (len(rows[0]) * cell[0] + MARGIN, len(rows) * cell[1] + MARGIN), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(14)
    for row, pictures in enumerate(rows):
        for column, (pixels, text) in enumerate(pictures):
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            left, top = MARGIN + column * cell[0], MARGIN + row * cell[1]
            grid.paste(image.resize((width * scale, height * scale), Image.Resampling.NEAREST), (left, top))
            for line, words in enumerate(text.splitlines()):
                while draw.textlength(words, font) > width * scale:
                    words = words[:-2] + "…"
                draw.text((left, top + height * scale + 2 + 17 * line), words, "black", font)
    png = io.BytesIO()
    grid.save(png, "PNG")
    return png.getvalue()
