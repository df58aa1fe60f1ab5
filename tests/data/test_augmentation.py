"""What every transform keeps to, the policies, and the recipes that a configuration can express."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.config import Augmentation, load_experiment
from flaxnets.data import policies
from flaxnets.data.augmentation import eval_transforms, train_transforms
from flaxnets.data.colour import ColourJitter
from flaxnets.data.geometry import CentreCrop, PadAndCrop, RandomErasing, RandomFlip, RandomResizedCrop, Resize
from flaxnets.data.operations import AUTO_AUGMENT, RAND_AUGMENT, TRIVIAL_AUGMENT
from flaxnets.data.policies import IMAGENET_POLICY, AutoAugment, RandAugment, TrivialAugment

KEEPS_SHAPE = [
    PadAndCrop(3),
    RandomFlip(),
    RandomErasing(0.5, (1, 2, 3)),
    ColourJitter(0.4, 0.4, 0.4, 0.1),
    RandAugment(3, 9.0, deviation=1.0, probability=0.7),
    TrivialAugment(),
    AutoAugment(),
]
TO_SIZE_7 = [Resize(7), CentreCrop(7), RandomResizedCrop(7)]


@pytest.mark.parametrize("transform", [*KEEPS_SHAPE, *TO_SIZE_7], ids=lambda transform: type(transform).__name__)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_shape_type_and_repeatability(transform, height, width, channels, seed):
    if isinstance(transform, RandomErasing):
        transform = dataclasses.replace(transform, colour=transform.colour[:channels])
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    pixels.flags.writeable = False  # nothing may write into what it is given
    result = transform(pixels, np.random.default_rng(seed))
    assert result.shape == ((7, 7, channels) if transform in TO_SIZE_7 else pixels.shape)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, transform(pixels, np.random.default_rng(seed)))


@pytest.fixture
def applied(monkeypatch):
    """The operations that policies apply from now on, as names and magnitudes of -1 to 1."""
    seen = []

    def noted(name, operation):
        def apply(image, value):
            seen.append((name, round(value / (operation.widest or 1), 6)))
            return operation.apply(image, value)

        return operation._replace(apply=apply)

    for table in ("RAND_AUGMENT", "TRIVIAL_AUGMENT", "AUTO_AUGMENT"):
        operations = {name: noted(name, operation) for name, operation in getattr(policies, table).items()}
        monkeypatch.setattr(policies, table, operations)
    return seen


def repeat(policy, times):
    random, pixels = np.random.default_rng(0), np.zeros((2, 2, 3), np.uint8)
    for _ in range(times):
        policy(pixels, random)


def test_trivial_augment_reaches_every_magnitude_of_every_operation(applied):
    repeat(TrivialAugment(), 12_000)
    assert len(applied) == 12_000
    steps = {round(step / 30, 6) for step in range(31)}
    expected = {
        (name, sign * magnitude if operation.widest else 0)
        for name, operation in TRIVIAL_AUGMENT.items()
        for magnitude in steps
        for sign in ((-1, 1) if operation.signed else (1,))
    }
    assert set(applied) == expected


def test_rand_augment_applies_as_many_operations_as_asked(applied):
    repeat(RandAugment(3, 9.0), 1000)
    assert len(applied) == 3000
    counts = [sum(name == each for name, _ in applied) for each in RAND_AUGMENT]
    assert min(counts) > 150
    assert max(counts) < 280
    assert {abs(magnitude) for _, magnitude in applied} == {0, 0.9}


def test_the_magnitude_of_rand_augment_may_deviate_within_its_limits(applied):
    repeat(RandAugment(3, 7.0, deviation=0.5, probability=0.5), 1000)
    assert 1400 < len(applied) < 1600
    magnitudes = [abs(magnitude) for name, magnitude in applied if RAND_AUGMENT[name].widest]
    assert np.mean(magnitudes) == pytest.approx(0.7, abs=0.01)
    assert np.std(magnitudes) == pytest.approx(0.05, abs=0.005)
    applied.clear()
    repeat(RandAugment(2, 9.5, deviation=4.0), 200)
    assert max(abs(magnitude) for _, magnitude in applied) == 1


def test_auto_augment_draws_from_its_policy(applied):
    repeat(AutoAugment(), 6000)
    assert 1.2 < len(applied) / 6000 < 1.3  # the mean of the probabilities, times two
    levels = {(name, level) for pair in IMAGENET_POLICY for name, probability, level in pair if probability}
    expected = {
        (name, sign * round(level / 9, 6) if AUTO_AUGMENT[name].widest else 0)
        for name, level in levels
        for sign in ((-1, 1) if AUTO_AUGMENT[name].signed else (1,))
    }
    assert set(applied) == expected


def test_the_imagenet_policy_adds_up_to_what_was_published():
    """Figures of the table in torchvision and of that in timm, which are the same."""
    rows = [row for pair in IMAGENET_POLICY for row in pair]
    names = [name for name, _, _ in rows]
    assert len(IMAGENET_POLICY) == 25
    assert [names.count(name) for name in ("equalize", "solarize", "rotate", "posterize", "invert")] == [17, 7, 6, 5, 3]
    assert sum(probability for _, probability, _ in rows) == pytest.approx(31)
    assert sum(magnitude for _, _, magnitude in rows) == 287


RECIPES = {
    "torchvision V2": (
        'crop = "random_resized"\ncentre_crop = 0.9655\npolicy = "trivial_augment"\nerase = 0.1\n'
        "mixup = 0.2\ncutmix = 1.0",
        [RandomResizedCrop(224), RandomFlip(), TrivialAugment(), RandomErasing(0.1, (128, 64, 0))],
    ),
    "timm A1 and A2": (
        'crop = "random_resized"\ncentre_crop = 0.95\npolicy = "rand_augment"\nmagnitude = 7\n'
        "magnitude_deviation = 0.5\noperation_probability = 0.5\nmixup = 0.2\ncutmix = 1.0\nrepeats = 3",
        [RandomResizedCrop(224), RandomFlip(), RandAugment(2, 7.0, 0.5, 0.5)],
    ),
    "timm A3": (
        'crop = "random_resized"\npolicy = "rand_augment"\nmagnitude = 6\nmagnitude_deviation = 0.5\n'
        "operation_probability = 0.5\nmixup = 0.1\ncutmix = 1.0",
        [RandomResizedCrop(224), RandomFlip(), RandAugment(2, 6.0, 0.5, 0.5)],
    ),
    "torchvision MobileNetV3": (
        'crop = "random_resized"\npolicy = "auto_augment"\nerase = 0.2',
        [RandomResizedCrop(224), RandomFlip(), AutoAugment(), RandomErasing(0.2, (128, 64, 0))],
    ),
    "AlexNet's colours": (
        'crop = "none"\nflip = false\ncolour_jitter = [0.4, 0.4, 0.4, 0.1]',
        [Resize(224), ColourJitter(0.4, 0.4, 0.4, 0.1)],
    ),
    "shifts by half as much": ("shift = 0.0625", [Resize(224), PadAndCrop(14), RandomFlip()]),
    "the default": ("", [Resize(224), PadAndCrop(28), RandomFlip()]),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_few_lines_of_toml(name, tmp_path):
    text, expected = RECIPES[name]
    file = tmp_path / "recipe.toml"
    file.write_text(f"[augmentation]\n{text}\n")
    chosen = load_experiment(file).augmentation
    assert train_transforms(chosen, 224, mirrors=True, mean=(0.5, 0.25, 0.0)) == tuple(expected)


def test_flips_are_left_to_the_data_set_unless_said():
    def flips(flip, *, mirrors):
        chosen = Augmentation(flip=flip)
        return RandomFlip() in train_transforms(chosen, 8, mirrors=mirrors, mean=(0.5,))

    assert flips(None, mirrors=True)
    assert not flips(None, mirrors=False)
    assert flips(True, mirrors=False)
    assert not flips(False, mirrors=True)


def test_tests_show_the_centre_where_training_shows_parts():
    assert eval_transforms(Augmentation(crop="random_resized", centre_crop=0.95), 8) == (CentreCrop(8, 0.95),)
    assert eval_transforms(Augmentation(), 8) == eval_transforms(Augmentation(crop="none"), 8) == (Resize(8),)
