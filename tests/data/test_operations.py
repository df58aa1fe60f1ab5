"""The operations of the policies against slow references, pixel by pixel."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.data import operations
from flaxnets.data.colour import ColourJitter, to_image, to_pixels, turn_hue
from flaxnets.data.operations import AUTO_AUGMENT, RAND_AUGMENT, TRIVIAL_AUGMENT

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3]))
SEEDS = st.integers(0, 2**32 - 1)
ALL = [(table, name) for table in (AUTO_AUGMENT, TRIVIAL_AUGMENT) for name in table]
RANGED = [(table, name) for table, name in ALL if table[name].widest or name == "identity"]


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def applied(operation, pixels, value):
    return to_pixels(operation(to_image(pixels), value))


@given(SHAPES, SEEDS)
def test_magnitude_0_changes_nothing(shape, seed):
    pixels = picture(shape, seed)
    for table, name in RANGED:
        for negative in (False, True):
            changed = to_pixels(table[name].at(to_image(pixels), 0.0, negative=negative))
            np.testing.assert_array_equal(changed, pixels, err_msg=name)


def test_all_but_three_operations_have_a_range():
    without = {name for name, operation in AUTO_AUGMENT.items() if not operation.widest}
    assert without == {"identity", "auto_contrast", "equalize", "invert"}
    assert len(RAND_AUGMENT) == len(TRIVIAL_AUGMENT) == 14


@pytest.mark.parametrize(("table", "name"), [case for case in RANGED if case[1] != "identity"])
def test_full_magnitude_changes_much_and_the_sign_tells_where_to(table, name):
    # Smooth, without clipped values, and not symmetrical.
    pixels = np.clip(picture((5, 4, 3)) // 2 + 60, 0, 255).repeat(9, 0).repeat(9, 1)
    there, back = (
        to_pixels(table[name].at(to_image(pixels), 1.0, negative=negative)).astype(int) for negative in (False, True)
    )
    assert abs(there - pixels).mean() > 1
    assert (np.abs(there - back).mean() > 1) == table[name].signed


@given(SHAPES, SEEDS)
def test_a_grey_image_is_treated_as_a_colour_image_without_colours(shape, seed):
    pixels = picture((*shape[:2], 1), seed)
    coloured = np.repeat(pixels, 3, -1)
    for table, name in ALL:
        operation, magnitude = table[name], (seed % 31) / 30
        grey = to_pixels(operation.at(to_image(pixels), magnitude))
        np.testing.assert_array_equal(np.repeat(grey, 3, -1), to_pixels(operation.at(to_image(coloured), magnitude)))


@given(SHAPES, SEEDS, st.floats(-40, 40))
def test_translation_moves_by_whole_pixels_and_brings_in_black(shape, seed, distance):
    pixels = picture(shape, seed)
    height, width, _ = shape
    for operation, down, right in (
        (operations.translate_x, 0, int(distance)),
        (operations.translate_y, int(distance), 0),
    ):
        expected = np.zeros_like(pixels)
        for row in range(height):
            for column in range(width):
                if 0 <= row - down < height and 0 <= column - right < width:
                    expected[row, column] = pixels[row - down, column - right]
        np.testing.assert_array_equal(applied(operation, pixels, distance), expected)


def test_translation_by_a_share_is_of_the_side_that_it_moves_along():
    pixels = picture((20, 40, 3))
    np.testing.assert_array_equal(applied(operations.translate_x_share, pixels, 0.25)[:, 10:], pixels[:, :-10])
    np.testing.assert_array_equal(applied(operations.translate_y_share, pixels, 0.25)[5:], pixels[:-5])


@pytest.mark.parametrize("slope", [-0.9, -0.3, 0.1, 0.99])
def test_shear_shifts_each_row_by_its_distance_from_the_top(slope):
    pixels = picture((16, 16, 1), 3)
    sheared = applied(operations.shear_x, pixels, slope).astype(float)
    columns = np.arange(16)
    for row in range(16):
        place = columns + slope * (row + 0.5)
        expected = np.interp(place, columns, pixels[row, :, 0])
        inside = (place > 0) & (place < 15)
        np.testing.assert_allclose(sheared[row, inside, 0], expected[inside], atol=1)
    transposed = applied(operations.shear_y, pixels.transpose(1, 0, 2), slope)
    np.testing.assert_array_equal(transposed.transpose(1, 0, 2), sheared)


def test_rotation_is_about_the_centre():
    pixels = picture((9, 9, 3))
    np.testing.assert_array_equal(applied(operations.rotate, pixels, 90), np.rot90(pixels))
    assert not applied(operations.rotate, np.full((9, 9, 1), 255, np.uint8), 45)[0, 0].any()


@given(SHAPES, SEEDS, st.floats(-0.99, 0.99))
def test_brightness_multiplies_and_contrast_and_saturation_move_away_from_grey(shape, seed, change):
    pixels = picture(shape, seed).astype(float)
    luma = pixels @ [0.299, 0.587, 0.114] if shape[-1] == 3 else pixels[..., 0]
    starts = {"brightness": 0, "contrast": np.round(np.round(luma).mean()), "saturation": luma[..., None]}
    for name, start in starts.items():
        expected = np.clip(start + (1 + change) * (pixels - start), 0, 255)
        changed = applied(RAND_AUGMENT[name].apply, pixels.astype(np.uint8), change)
        np.testing.assert_allclose(changed, expected, atol=2.5, err_msg=name)


@given(SHAPES, SEEDS, st.floats(0, 1))
def test_operations_on_single_values(shape, seed, magnitude):
    pixels = picture(shape, seed)

    def expected(function):
        return np.array([function(int(value)) for value in pixels.reshape(-1)]).reshape(shape)

    kept = 8 - round(6 * magnitude)
    posterized = expected(lambda value: int(f"{value:08b}"[:kept].ljust(8, "0"), 2))
    np.testing.assert_array_equal(applied(operations.posterize, pixels, 6 * magnitude), posterized)
    threshold = 256 - round(256 * magnitude)
    solarized = expected(lambda value: 255 - value if value >= threshold else value)
    np.testing.assert_array_equal(applied(operations.solarize, pixels, 256 * magnitude), solarized)
    np.testing.assert_array_equal(applied(operations.invert, pixels, 0), 255 - pixels)


@given(SHAPES, SEEDS)
def test_auto_contrast_fills_the_range_of_each_channel(shape, seed):
    pixels = picture(shape, seed) // 3 + 40
    stretched = applied(operations.auto_contrast, pixels, 0)
    for channel in range(shape[-1]):
        values = pixels[..., channel].astype(float)
        if np.ptp(values):
            values = (values - values.min()) / np.ptp(values) * 255
        np.testing.assert_allclose(stretched[..., channel], values, atol=1)


def test_equalisation_makes_the_histogram_flat():
    pixels = (picture((128, 128, 3)).astype(float) ** 2 / 255).astype(np.uint8)
    equal = applied(operations.equalize, pixels, 0)
    for channel in range(3):
        counts, _ = np.histogram(equal[..., channel], 8, (0, 256))
        assert counts.max() < 1.5 * counts.min()
        assert np.ptp(np.bincount(pixels[..., channel].reshape(-1), minlength=256).reshape(8, 32).sum(1)) > 3000


@given(st.floats(-0.5, 0.5), SEEDS)
def test_hue_turns_around_the_colour_circle(turn, seed):
    pixels = picture((3, 3, 3), seed)
    turned = to_pixels(turn_hue(to_image(pixels), turn))
    for before, after in zip(pixels.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        # Pillow keeps 8 bits of hue: the turn is a whole number of 1/256, and hues are up to as much too low, which is
        # 6/256 of a channel's range; the rest is rounding.
        hue += round(turn * 256) / 256
        expected = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255
        np.testing.assert_allclose(after, expected, atol=12)


def test_jitter_draws_each_factor_from_its_range():
    random = np.random.default_rng(0)
    grey = np.full((2, 2, 1), 100, np.uint8)
    levels = np.array([ColourJitter(brightness=0.4)(grey, random)[0, 0, 0] for _ in range(500)])
    assert levels.min() in range(60, 64)
    assert levels.max() in range(137, 141)
    assert 95 < levels.mean() < 105
    red = np.full((1, 1, 3), (200, 100, 100), np.uint8)
    greens = {tuple(ColourJitter(hue=0.1)(red, random)[0, 0]) for _ in range(200)}
    assert all(colour[0] == 200 and min(colour[1:]) >= 99 and max(colour[1:]) < 165 for colour in greens)
    assert len(greens) > 10
    spread = [int(np.ptp(ColourJitter(saturation=0.5)(red, random))) for _ in range(300)]
    assert min(spread) in range(49, 56)
    assert max(spread) in range(110, 151)  # red cannot grow beyond 255
    np.testing.assert_array_equal(ColourJitter(saturation=1, hue=0.5)(grey, random), grey)


def test_jitter_changes_in_any_order():
    pixels = np.array([[[0], [100], [250]]], np.uint8)
    factors = np.linspace(0.1, 1.9, 180)

    def brighter(values, axis):
        factor = factors[:, None, None] if axis == 0 else factors[None, :, None]
        return np.clip(values * factor, 0, 255)

    def starker(values, axis):
        mean, factor = values.mean(-1, keepdims=True), factors[:, None, None] if axis == 0 else factors[None, :, None]
        return np.clip(mean + factor * (values - mean), 0, 255)

    start = pixels[None, :, :, 0].astype(float)
    reachable = {
        "brightness first": starker(brighter(start, 0), 1),
        "contrast first": brighter(starker(start, 0), 1),
    }
    only = set()
    for seed in range(60):
        result = ColourJitter(brightness=0.9, contrast=0.9)(pixels, np.random.default_rng(seed))[0, :, 0]
        fits = [order for order, values in reachable.items() if (abs(values - result).max(-1) < 3).any()]
        assert fits
        if len(fits) == 1:
            only |= {*fits}
    assert only == set(reachable)
