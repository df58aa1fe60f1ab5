"""scikit-learn's handwritten digits as a TensorFlow Datasets builder that needs neither TensorFlow nor a network."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TEST_EVERY = 5  # of each class, every fifth picture is a test picture: a fixed, stratified split


class FlaxnetsDigits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8x8 grey pixels in 10 classes (UCI optical recognition of handwritten digits)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Every fifth picture of each class is a test picture."}  # noqa: RUF012 (read by TFDS)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: object):
        from sklearn.datasets import load_digits

        pixels, targets = load_digits(return_X_y=True)
        # Pixels are counts from 0 to 16.
        pictures = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        test = np.zeros(len(pictures), bool)
        for digit in range(10):
            test[np.flatnonzero(targets == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
        return {
            "train": self._generate_examples(pictures[~test], targets[~test]),
            "test": self._generate_examples(pictures[test], targets[test]),
        }

    def _generate_examples(self, pictures: np.ndarray, labels: np.ndarray):
        for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(picture).save(png, "PNG")
            # Bytes, not an array: TFDS would encode an array by TensorFlow.
            yield index, {"image": png.getvalue(), "label": int(label)}
