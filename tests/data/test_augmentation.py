"""Transforms against slow references, and their invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from flaxnets.data import pixels
from flaxnets.data.augmentation import CenterCrop, RandomFlip, RandomResizedCrop, RandomShift, Resize


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_shift_moves_pixels_and_brings_in_black(height, width, seed):
    image = picture(height, width)
    shifted = RandomShift(1 / 4)(image, np.random.default_rng(seed))
    reach = round(height / 4), round(width / 4)
    padded = np.pad(image, ((reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    windows = (
        padded[top : top + height, left : left + width]
        for top in range(2 * reach[0] + 1)
        for left in range(2 * reach[1] + 1)
    )
    assert any((shifted == window).all() for window in windows)


def test_shifts_reach_every_place_equally():
    image = np.pad(np.full((1, 1), 255, np.uint8), 4)[..., None]
    random = np.random.default_rng(0)
    counts = sum(RandomShift(1 / 9)(image, random)[..., 0] / 255 for _ in range(900))
    assert (counts[3:6, 3:6] > 60).all()
    assert counts.sum() == counts[3:6, 3:6].sum() == 900


def test_a_flip_mirrors_half_of_the_images():
    image = picture(4, 6)
    random = np.random.default_rng(0)
    flipped = [RandomFlip()(image, random) for _ in range(400)]
    mirrored = sum((each == image[:, ::-1]).all() for each in flipped)
    assert 160 < mirrored < 240
    assert mirrored + sum((each == image).all() for each in flipped) == 400


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


def photo(height: int, width: int) -> np.ndarray:
    return pixels.resize(load_sample_images().images[1], height, width)


def by_pillow(part: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BILINEAR), int)


def test_a_random_crop_is_the_resized_part():
    image = photo(300, 250)
    crop = RandomResizedCrop(32)
    left, top, width, height = crop.box(250, 300, np.random.default_rng(5))
    reference = by_pillow(image[top : top + height, left : left + width], 32)
    assert abs(crop(image, np.random.default_rng(5)) - reference).mean() < 1.5


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 500), (500, 300), (224, 1000)])
def test_a_central_crop_is_resize_then_crop(height, width):
    image = pixels.resize(photo(8, 8), height, width)  # smooth, so that half a pixel's shift makes no difference
    scale = 64 / 0.875 / min(height, width)
    resized = Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - 64) // 2, (resized.height - 64) // 2
    reference = np.asarray(resized.crop((left, top, left + 64, top + 64)), int)
    assert abs(CenterCrop(64)(image, np.random.default_rng(0)) - reference).mean() < 3


def test_resize_keeps_a_flat_image():
    resized = Resize(32)(np.full((3, 5, 1), 77, np.uint8), np.random.default_rng(0))
    assert resized.shape == (32, 32, 1)
    assert (resized == 77).all()
