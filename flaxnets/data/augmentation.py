"""From a decoded image to the pixels that the network sees: random for training, fixed for testing."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flaxnets.config import Augmentation
from flaxnets.data.colour import ColourJitter
from flaxnets.data.geometry import CentreCrop, PadAndCrop, RandomErasing, RandomFlip, RandomResizedCrop, Resize
from flaxnets.data.policies import AutoAugment, RandAugment, TrivialAugment


class Transform(Protocol):
    """Pixels uint8 [h, w, c] (c = 1 or 3) and a source of randomness -> such pixels; what is given is not changed."""

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Transform one image; fixed transforms ignore `random`."""
        ...


def train_transforms(chosen: Augmentation, size: int, *, mirrors: bool, mean: Sequence[float]) -> tuple[Transform, ...]:
    """What a training image goes through, up to mixing, which is part of the training step.

    Args:
      chosen: the configuration.
      size: height and width of the result, in pixels.
      mirrors: whether to flip where the configuration leaves that to the data set.
      mean: of each channel of the data set, in [0, 1].
    """
    crops: dict[str, tuple[Transform, ...]] = {
        "none": (Resize(size),),
        "pad": (Resize(size), PadAndCrop(round(size * chosen.shift))),
        "random_resized": (RandomResizedCrop(size, chosen.crop_area, chosen.crop_ratio),),
    }
    policies: dict[str, Transform] = {
        "rand_augment": RandAugment(
            chosen.operations, chosen.magnitude, chosen.magnitude_deviation, chosen.operation_probability
        ),
        "trivial_augment": TrivialAugment(),
        "auto_augment": AutoAugment(),
    }
    transforms = [*crops[chosen.crop]]
    if mirrors if chosen.flip is None else chosen.flip:
        transforms.append(RandomFlip())
    if any(chosen.colour_jitter):
        transforms.append(ColourJitter(*chosen.colour_jitter))
    if chosen.policy != "none":
        transforms.append(policies[chosen.policy])
    if chosen.erase:
        transforms.append(RandomErasing(chosen.erase, tuple(round(255 * value) for value in mean)))
    return tuple(transforms)


def eval_transforms(chosen: Augmentation, size: int) -> tuple[Transform, ...]:
    """What a test image goes through, where training images go through `train_transforms`."""
    return (CentreCrop(size, chosen.centre_crop),) if chosen.crop == "random_resized" else (Resize(size),)
