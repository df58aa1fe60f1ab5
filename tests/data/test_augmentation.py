"""Transforms against slow references, and their invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flaxnets.data.augmentation import CenterCrop, RandomFlip, RandomResizedCrop, RandomShift, Resize


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_shift_moves_pixels_and_brings_in_black(height, width, seed):
    image = picture(height, width)
    shifted = np.asarray(RandomShift(1 / 4)(image, np.random.default_rng(seed)))
    reach = round(height / 4), round(width / 4)
    padded = np.pad(np.asarray(image), ((reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    windows = (
        padded[top : top + height, left : left + width]
        for top in range(2 * reach[0] + 1)
        for left in range(2 * reach[1] + 1)
    )
    assert any((shifted == window).all() for window in windows)


def test_shifts_reach_every_place_equally():
    image = Image.fromarray(np.pad(np.full((1, 1), 255, np.uint8), 4))
    random = np.random.default_rng(0)
    counts = sum(np.asarray(RandomShift(1 / 9)(image, random)) / 255 for _ in range(900))
    assert (counts[3:6, 3:6] > 60).all()
    assert counts.sum() == counts[3:6, 3:6].sum() == 900


def test_a_flip_mirrors_half_of_the_images():
    image = picture(4, 6)
    random = np.random.default_rng(0)
    flipped = [np.asarray(RandomFlip()(image, random)) for _ in range(400)]
    mirrored = sum((each == np.asarray(image)[:, ::-1]).all() for each in flipped)
    assert 160 < mirrored < 240
    assert mirrored + sum((each == np.asarray(image)).all() for each in flipped) == 400


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_a_random_crop_lies_in_the_image_and_keeps_to_its_ranges(height, width, seed):
    crop = RandomResizedCrop(8)
    left, top, part_width, part_height = crop.box(width, height, np.random.default_rng(seed))
    assert left >= 0 and top >= 0 and left + part_width <= width and top + part_height <= height  # noqa: PT018
    assert part_width > 0 and part_height > 0  # noqa: PT018
    if min(height, width) > 50 and max(height, width) / min(height, width) < 4 / 3:
        area = part_width * part_height / (height * width)
        assert 0.07 < area <= 1
        assert 0.7 < part_width / part_height < 1.45


def test_a_random_crop_is_the_resized_part():
    image = picture(60, 50)
    crop = RandomResizedCrop(16)
    left, top, width, height = crop.box(50, 60, np.random.default_rng(5))
    part = image.crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BILINEAR)
    difference = np.asarray(crop(image, np.random.default_rng(5)), int) - np.asarray(part, int)
    assert (
        abs(difference).mean() < 2
    )  # the reference cannot see beyond the cut, bilinear filtering looks a pixel further


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 500), (500, 300), (224, 1000)])
def test_a_central_crop_is_resize_then_crop(height, width):
    image = picture(height, width).resize((width, height))
    smooth = image.resize((8, 8)).resize((width, height), Image.Resampling.BICUBIC)
    scale = 64 / 0.875 / min(height, width)
    resized = smooth.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - 64) // 2, (resized.height - 64) // 2
    reference = np.asarray(resized.crop((left, top, left + 64, top + 64)), int)
    difference = abs(np.asarray(CenterCrop(64)(smooth, np.random.default_rng(0)), int) - reference)
    assert difference.mean() < 3


def test_resize_keeps_a_flat_image():
    image = Image.fromarray(np.full((3, 5), 77, np.uint8))
    resized = np.asarray(Resize(32)(image, np.random.default_rng(0)))
    assert resized.shape == (32, 32)
    assert (resized == 77).all()
