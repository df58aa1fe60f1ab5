"""One trained run, and the pictures that it was trained on, for the tests of all tools that use a run."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from flaxnets.cli import main

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run folder; and its data, `folder:PICTURES`, digits as PNG files in a folder a class."""

    folder: Path
    pictures: Path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tiny_plugin) -> TrainedRun:
    """tiny_net on 400 digits for 60 steps: right more often than not, and wrong often enough."""
    root = tmp_path_factory.mktemp("trained")
    sys.path.insert(0, str(tiny_plugin))  # installed, as far as importlib.metadata can see
    pixels, labels = load_digits(return_X_y=True)
    for number in range(400):
        file = root / "digits" / WORDS[labels[number]] / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(pixels[number].reshape(8, 8) * (255 / 16)).astype(np.uint8)).save(file)
    options = ["--arch", "tiny_net", "--data.name", f"folder:{root}/digits", "--data.image-size", "16", "--steps", "60"]
    options += ["--runs", str(root / "runs"), "--name", "tiny", "--compilation-cache", str(root / "compiled")]
    options += ["--evaluate-every", "6 epochs", "--optimizer.peak-lr", "1"]
    options += ["--augmentation.flip", "False", "--augmentation.crop", "none"]
    assert main(["train", *options]) == 0
    return TrainedRun(root / "runs" / "tiny", root / "digits")
