"""Two steps of the recipes for Fashion-MNIST, on files of its format."""

from pathlib import Path

import numpy as np
import pytest
from idx_files import write_idx

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("name", ["fashion_mnist_resnet18", "fashion_mnist_mobilenet_v2"])
def test_a_recipe_trains_on_four_files(flaxnets, name):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    files = flaxnets.folder / "fashion-mnist"  # where the recipe looks for them
    files.mkdir()
    write_idx(files, images, np.arange(40, dtype=np.uint8) % 10)
    options = ["--data.batch-size", 8, "--steps", 2, "--schedule.warmup", "0 steps"]
    done = flaxnets("train", "--experiment", EXPERIMENTS / f"{name}.toml", *options)
    assert "40 training and 40 test images, 10 classes" in done.stdout
    assert "best test accuracy" in done.stdout
