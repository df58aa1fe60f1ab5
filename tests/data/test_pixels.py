"""Decoding what people have, resizing as Pillow does, and refusing damaged bytes without a crash."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutate import encode, mutate, originals, try_one
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from flaxnets.data import pixels

PHOTOGRAPHS = [Image.fromarray(photograph) for photograph in load_sample_images().images]
SMALL = PHOTOGRAPHS[1].resize((60, 40))


def difference(a, b):
    return abs(np.asarray(a, int) - np.asarray(b, int)).mean()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("scale", [0.3, 0.7, 1.05, 1.2, 1.3, 1.5, 1.8, 2, 2.2, 2.7, 3.5, 5, 9])
def test_resizing_is_pillows_antialiased_bilinear(photograph, scale):
    width, height = round(photograph.width / scale), round(photograph.height / scale)
    reference = photograph.resize((width, height), Image.Resampling.BILINEAR)
    assert difference(pixels.resize(np.asarray(photograph), height, width), reference) < 1.5


@given(st.integers(5, 400), st.integers(5, 400), st.integers(5, 300), st.integers(5, 300), st.sampled_from([1, 3]))
def test_any_size_becomes_any_other(height, width, new_height, new_width, channels):
    photograph = PHOTOGRAPHS[1].resize((width, height)).convert("L" if channels == 1 else "RGB")
    reference = np.asarray(photograph.resize((new_width, new_height), Image.Resampling.BILINEAR))
    resized = pixels.resize(np.asarray(photograph).reshape(height, width, channels), new_height, new_width)
    assert resized.shape == (new_height, new_width, channels)
    assert difference(resized.squeeze(), reference.squeeze()) < 2.5  # small pictures are all edges


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_stand_upright(orientation, kind):
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    file = encode(SMALL, kind, exif=exif)
    reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    image = pixels.EncodedImage(file)
    assert (image.height, image.width) == reference.shape[:2]
    np.testing.assert_array_equal(image.decode(3), reference)
    np.testing.assert_array_equal(pixels.resize(image.decode(3), *reference.shape[:2]), reference)


def test_xmp_data_turn_an_image_as_well():
    file = encode(SMALL, "JPEG", xmp=b'<rdf:Description tiff:Orientation="6"/>')
    assert (pixels.EncodedImage(file).height, pixels.EncodedImage(file).width) == (60, 40)


KINDS = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "1", "P", "LA", "RGBA"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "P"],
    "GIF": ["P", "L"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in KINDS.items() for mode in modes])
def test_every_kind_of_file_shows_the_same_picture(kind, mode):
    file = encode(SMALL.convert(mode), kind)
    tolerance = 30 if mode in ("1", "P") else 6  # dithered, or compressed with loss
    grey = SMALL.convert("L")
    colour = grey.convert("RGB") if mode in ("L", "LA", "1") else SMALL
    assert difference(pixels.resize(pixels.decode(file, 3), 10, 15), colour.resize((15, 10))) < tolerance
    assert difference(pixels.resize(pixels.decode(file, 1), 10, 15)[..., 0], grey.resize((15, 10))) < tolerance


@pytest.mark.parametrize(
    "options", [{}, {"comment": b"\xff\xe1"}, {"icc_profile": b"x" * 70_000}, {"progressive": True}]
)
def test_jpegs_are_decoded_as_pillow_does(options):
    file = encode(PHOTOGRAPHS[0], "JPEG", quality=90, **options)
    np.testing.assert_array_equal(pixels.decode(file, 3), np.asarray(Image.open(io.BytesIO(file))))


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_decoded_small_is_the_picture_made_small(shrink):
    photograph = PHOTOGRAPHS[1]
    small = pixels.EncodedImage(encode(photograph, "JPEG", quality=95)).decode(3, shrink)
    assert small.shape == (-(-427 // shrink), -(-640 // shrink), 3)
    assert difference(small, photograph.resize(small.shape[1::-1], Image.Resampling.BOX)) < 4


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("scale", [1.1, 1.5, 2.5])
def test_a_draft_once_resized_is_as_near_to_pillow_as_wanted(photograph, scale):
    file = encode(photograph, "JPEG", quality=90)
    width, height = round(photograph.width / scale), round(photograph.height / scale)
    reference = Image.open(io.BytesIO(file)).resize((width, height), Image.Resampling.BILINEAR)
    assert difference(pixels.resize(pixels.EncodedImage(file).decode(3, draft=True), height, width), reference) < 1.5


def test_transparent_parts_are_white():
    for mode in ("RGBA", "LA"):
        image = Image.new(mode, (8, 8), (0,) * len(mode))
        assert (pixels.decode(encode(image, "PNG"), 3) == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (pixels.decode(encode(half, "PNG"), 1) == 127).all()
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert (pixels.decode(encode(palette, "PNG", transparency=0), 3) == 255).all()


def test_sixteen_bits_become_eight():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(pixels.decode(encode(Image.fromarray(levels), "PNG"), 1)[..., 0], levels >> 8)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("P", (8, 8), 0), Image.new("P", (8, 8), 1)]
    for frame in frames:
        frame.putpalette([200, 100, 50, 0, 0, 0])
    assert (pixels.decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), 3) == [200, 100, 50]).all()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises what its data do not hold."""
    file = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "it is no JPEG, PNG, WebP, BMP or GIF image"),
        (encode(SMALL, "TIFF"), "it is no JPEG, PNG, WebP, BMP or GIF image"),
        (encode(SMALL, "JPEG")[:-200], "it cannot be decoded: image file is truncated"),
        (encode(SMALL, "PNG")[:-200], "it cannot be decoded: image file is truncated"),
        (encode(SMALL, "WEBP")[:-200], "it cannot be decoded|its header is damaged"),
        (png_of_size(40_000, 40_000), "more than 89,478,485"),
        (png_of_size(9_500, 9_500), "more than 89,478,485"),
        (encode(SMALL, "JPEG", progressive=True) + 101 * b"\xff\xda", "it is a JPEG of more than 100 scans"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(file, problem):
    with pytest.raises(pixels.BrokenImageError, match=problem):
        pixels.decode(file, 3)


@given(st.integers(0, 2**32 - 1), st.sampled_from(originals()))
def test_damaged_files_are_read_or_refused(seed, file):
    """By hand, many more: see `mutate.py`."""
    assert try_one(mutate(file, np.random.default_rng(seed))) in ("read", "refused")


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"])
)
def test_any_bytes_are_read_or_refused(tail, start):
    assert try_one(start + tail) in ("read", "refused")
