"""Crops, flips and erased boxes against slow references, and their invariants."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from flaxnets.data.geometry import (
    LONG,
    CentreCrop,
    CornerCrop,
    PadAndCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    Resize,
)

CHANNELS = st.sampled_from([1, 3])
SEEDS = st.integers(0, 2**32 - 1)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@given(st.integers(1, 40), st.integers(1, 40), CHANNELS, st.integers(0, 12), SEEDS)
def test_pad_and_crop_shows_a_window_of_the_padded_image(height, width, channels, padding, seed):
    image = picture(height, width, channels, seed)
    shifted = PadAndCrop(padding)(image, np.random.default_rng(seed))
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    windows = (
        padded[top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    )
    assert any(np.array_equal(shifted, window) for window in windows)


def test_shifts_reach_every_place_equally():
    image = np.pad(np.full((1, 1, 1), 255, np.uint8), ((4, 4), (4, 4), (0, 0)))
    random = np.random.default_rng(0)
    counts = sum(PadAndCrop(1)(image, random)[..., 0] / 255 for _ in range(900))
    assert (counts[3:6, 3:6] > 60).all()
    assert counts.sum() == counts[3:6, 3:6].sum() == 900


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flip_mirrors_half_of_the_images(channels):
    image = picture(4, 6, channels)
    random = np.random.default_rng(0)
    flipped = [RandomFlip()(image, random) for _ in range(400)]
    mirrored = sum(np.array_equal(each, image[:, ::-1]) for each in flipped)
    assert 160 < mirrored < 240
    assert mirrored + sum(np.array_equal(each, image) for each in flipped) == 400


@given(st.integers(1, 500), st.integers(1, 500), SEEDS)
def test_a_random_crop_lies_in_the_image_and_keeps_to_its_ranges(height, width, seed):
    crop = RandomResizedCrop(8)
    left, top, part_width, part_height = crop.box(width, height, np.random.default_rng(seed))
    assert top >= 0
    assert left >= 0
    assert 0 < part_height <= height - top
    assert 0 < part_width <= width - left
    if min(height, width) > 50 and max(height, width) / min(height, width) < 4 / 3:
        area = part_width * part_height / (height * width)
        assert 0.07 < area <= 1
        assert 0.7 < part_width / part_height < 1.45


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_crop_is_the_resized_part(channels):
    photograph = Image.fromarray(load_sample_images().images[1]).resize((50, 60))
    image = np.asarray(photograph.convert("RGB" if channels == 3 else "L")).reshape(60, 50, channels)
    crop = RandomResizedCrop(16)
    left, top, width, height = crop.box(50, 60, np.random.default_rng(5))
    part = Image.fromarray(image[top : top + height, left : left + width].squeeze())
    expected = np.asarray(part.resize((16, 16), Image.Resampling.BILINEAR), int).reshape(16, 16, channels)
    assert abs(crop(image, np.random.default_rng(5)) - expected).mean() < 1.5


@given(st.integers(1, 120), st.integers(1, 120), CHANNELS, st.integers(1, 24), st.sampled_from([0.875, 224 / 232, 1.0]))
def test_a_central_crop_is_resize_then_crop(height, width, channels, size, ratio):
    image = picture(height, width, channels)
    shorter = max(size, round(size / ratio))
    shape = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    left, top = (round((side - size) / 2) for side in shape)
    seen = left, top, left + size, top + size
    original = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
    expected = np.asarray(in_two_passes(original, shape).crop(seen)).reshape(size, size, channels)
    cropped = CentreCrop(size, ratio)(image, np.random.default_rng(0))
    if max(height, width) <= LONG * min(height, width):
        np.testing.assert_array_equal(cropped, expected)
    planes = (Image.fromarray(plane) for plane in np.moveaxis(image.astype(np.float32), -1, 0))
    unrounded = np.stack([in_two_passes(plane, shape).crop(seen) for plane in planes], axis=-1)
    at_once = np.asarray(original.resize(shape, Image.Resampling.BILINEAR).crop(seen)).reshape(size, size, channels)
    for pixels in (cropped, at_once):
        assert abs(pixels - unrounded).max() <= 1.001  # each pass rounds by up to a half


def in_two_passes(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Columns first, as Pillow always did before version 13."""
    return image.resize((shape[0], image.height), Image.Resampling.BILINEAR).resize(shape, Image.Resampling.BILINEAR)


def test_a_line_of_pixels_can_be_seen():
    line = np.linspace(0, 255, 1_000_000).astype(np.uint8)[:, None, None]
    seen = CentreCrop(224)(line, np.random.default_rng(0))
    assert seen.shape == (224, 224, 1)
    assert abs(seen.astype(int) - 127).max() <= 1


def test_corners_and_centre_are_five_crops_of_one_resized_image():
    image = picture(60, 90)
    whole = Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)
    for right, bottom in itertools.product((False, True), repeat=2):
        seen = CornerCrop(28, 0.875, right, bottom)(image, np.random.default_rng(0))
        left, top = 20 * right, 4 * bottom
        np.testing.assert_array_equal(seen, np.asarray(whole.crop((left, top, left + 28, top + 28))))


def test_resize_keeps_a_flat_image():
    resized = Resize(32)(np.full((3, 5, 1), 77, np.uint8), np.random.default_rng(0))
    assert resized.shape == (32, 32, 1)
    assert (resized == 77).all()


@given(st.integers(1, 60), st.integers(1, 60), CHANNELS, SEEDS)
def test_erasing_paints_one_box_of_the_allowed_size_and_nothing_else(height, width, channels, seed):
    image = picture(height, width, channels, seed) // 2  # nowhere as bright as the paint
    before, colour = image.copy(), (200, 210, 220)[:channels]
    erased = RandomErasing(1.0, colour)(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)
    painted = (erased == colour).all(-1)
    np.testing.assert_array_equal(erased[~painted], image[~painted])
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    if not len(rows):
        assert height * width < 200 or max(height, width) > 2 * min(height, width)  # ten tries did not fit
        return
    assert painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert painted.sum() == len(rows) * len(columns)
    for ours, theirs in ((len(rows), len(columns)), (len(columns), len(rows))):  # sides are rounded to pixels
        assert (ours - 0.5) * (theirs - 0.5) <= 0.33 * height * width
        assert (ours + 0.5) * (theirs + 0.5) >= 0.02 * height * width
        assert (ours - 0.5) / (theirs + 0.5) <= 1 / 0.3


def test_erasing_happens_as_often_as_asked():
    image, random = np.zeros((40, 40, 1), np.uint8), np.random.default_rng(0)
    erase = RandomErasing(0.1, (9,))
    assert 70 < sum(erase(image, random).any() for _ in range(1000)) < 130
