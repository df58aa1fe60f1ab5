"""Damaged image files: real photographs in every format, then bytes changed, cut, repeated or swapped; by seed."""

import faulthandler
import io
import sys
import time

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from flaxnets.data import pixels

TIME_LIMIT = 10  # seconds a file, after which it counts as hanging


def originals() -> list[bytes]:
    """Small photographs in every format and mode that is read."""
    photograph = Image.fromarray(load_sample_images().images[0]).resize((60, 40))
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = 6
    transparent = photograph.convert("RGBA")
    transparent.putalpha(photograph.convert("L"))
    deep = Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257)
    kinds = [
        (photograph, "JPEG", {"exif": exif}),
        (photograph, "JPEG", {"progressive": True, "quality": 90, "subsampling": 0}),
        (photograph.convert("L"), "JPEG", {}),
        (photograph.convert("CMYK"), "JPEG", {}),
        (photograph, "PNG", {"exif": exif}),
        (photograph.convert("P"), "PNG", {"transparency": 3}),
        (transparent, "PNG", {}),
        (deep, "PNG", {}),
        (photograph.convert("1"), "PNG", {}),
        (photograph, "WEBP", {}),
        (transparent, "WEBP", {"lossless": True}),
        (photograph, "BMP", {}),
        (photograph.convert("P"), "BMP", {}),
        (photograph.convert("P"), "GIF", {"save_all": True, "append_images": [photograph.convert("P")]}),
    ]
    return [encode(image, kind, **options) for image, kind, options in kinds]


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mutate(file: bytes, random: np.random.Generator) -> bytes:
    """A few mutations of a file, most of them near its start, where the headers are."""
    damaged = bytearray(file)
    for _ in range(random.integers(1, 6)):
        reach = len(damaged) if random.random() < 0.5 else min(len(damaged), 200)
        start = int(random.integers(reach)) if reach else 0
        length = int(random.integers(1, 40))
        match random.integers(6):
            case 0:
                damaged[start : start + 1] = random.bytes(1)
            case 1:
                damaged[start : start + length] = random.bytes(length)
            case 2:
                del damaged[start : None if random.random() < 0.3 else start + length]
            case 3:
                damaged[start:start] = damaged[start : start + length]
            case 4:
                damaged[start : start + 2] = random.choice([b"\xff\xff", b"\x00\x00", b"\x7f\xff", b"\xff\xda"])
            case 5:
                damaged[start : start + 1] = bytes([damaged[start] ^ (1 << int(random.integers(8)))] if reach else b"")
    return bytes(damaged)


def try_one(file: bytes) -> str:
    """`read`, or `refused` if the decoder says what is wrong; anything else escapes."""
    try:
        image = pixels.EncodedImage(file)
        for channels, shrink, draft in ((3, 1, False), (3, 1, True), (1, 8, True)):
            decoded = image.decode(channels, shrink, draft)
            assert decoded.dtype == np.uint8
            assert decoded.shape[2] == channels
            assert shrink > 1 or decoded.shape[:2] == (image.height, image.width)
    except pixels.BrokenImageError:
        return "refused"
    return "read"


def main(first: int, count: int) -> None:
    """Try many, by hand: `python tests/data/mutate.py FIRST_SEED COUNT`."""
    files, results, slowest = originals(), {"read": 0, "refused": 0}, (0.0, first)
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        damaged = mutate(files[seed % len(files)], random)
        if seed % 100 == 0:
            print(f"seeds from {seed} on", file=sys.stderr)  # tells which, if one kills the process
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        started = time.process_time()
        results[try_one(damaged)] += 1
        slowest = max(slowest, (time.process_time() - started, seed))
    print(f"{count} files from seed {first}: {results}, slowest {slowest[0]:.2f} s (seed {slowest[1]})")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
