"""RandAugment, TrivialAugment and AutoAugment: which operations an image goes through, and how far each goes."""

import dataclasses

import numpy as np

from flaxnets.data.colour import to_image, to_pixels
from flaxnets.data.operations import AUTO_AUGMENT, RAND_AUGMENT, TRIVIAL_AUGMENT


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Some of 14 operations, drawn anew for each image, all of one magnitude.

    Args:
      operations: how many; one may come twice.
      magnitude: from 0, which changes nothing, to 10; torchvision counts to 30 instead, so its 9 is 3 here.
      deviation: standard deviation of the magnitude, drawn for each operation (timm's `mstd`).
      probability: of each operation to take place; timm has 1/2.

    Source: Cubuk et al. 2019, arXiv:1909.13719; the default numbers are those of its ResNet-50. Ranges: `operations`.
    """

    operations: int = 2
    magnitude: float = 9.0
    deviation: float = 0.0
    probability: float = 1.0

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Change uint8 pixels [h, w, c]; their shape stays."""
        image = to_image(pixels)
        for _ in range(self.operations):
            operation = list(RAND_AUGMENT.values())[random.integers(len(RAND_AUGMENT))]
            magnitude = min(max(random.normal(self.magnitude, self.deviation) / 10, 0.0), 1.0)
            negative = random.random() < 0.5
            if random.random() < self.probability:
                image = operation.at(image, magnitude, negative=negative)
        return to_pixels(image)


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """One of 14 operations, of any magnitude, each as likely as the next.

    Source: Müller and Hutter 2021, arXiv:2103.10158, the wide search space and its 31 magnitudes.
    """

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Change uint8 pixels [h, w, c]; their shape stays."""
        operation = list(TRIVIAL_AUGMENT.values())[random.integers(len(TRIVIAL_AUGMENT))]
        magnitude = random.integers(31) / 30
        return to_pixels(operation.at(to_image(pixels), magnitude, negative=random.random() < 0.5))


# The policy that was found on ImageNet (arXiv:1805.09501, appendix): one line is drawn for each image.
# operation, probability, magnitude of 0 to 9 (of no account where the operation has no range), twice
IMAGENET_POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("saturation", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of the 25 pairs of operations that were found on ImageNet, each operation with its own probability.

    Source: Cubuk et al. 2018, arXiv:1805.09501; what a magnitude means is torchvision's, see `operations`.
    """

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Change uint8 pixels [h, w, c]; their shape stays."""
        image = to_image(pixels)
        for name, probability, magnitude in IMAGENET_POLICY[random.integers(len(IMAGENET_POLICY))]:
            negative = random.random() < 0.5
            if random.random() < probability:
                image = AUTO_AUGMENT[name].at(image, magnitude / 9, negative=negative)
        return to_pixels(image)
