"""Tiny runs on images of noise, which the tests of this folder disturb."""

import numpy as np
import pytest
from started import Started


@pytest.fixture(scope="session")
def noise(shared_folder):
    """A data set of 8x8 pixels and 4 classes."""
    file = shared_folder / "noise.npz"
    random = np.random.default_rng(0)
    np.savez(file, images=random.integers(0, 256, (2000, 8, 8), np.uint8), labels=np.arange(2000) % 4)
    return file


@pytest.fixture
def start(tmp_path, shared_folder, tiny_plugin, noise):
    """Start a training run; it is killed if the test fails meanwhile."""
    places = ["--data.name", f"arrays:{noise}", "--compilation-cache", shared_folder / "compiled"]
    size = ["--arch", "tiny_net", "--data.image-size", 8, "--data.batch-size", 16, "--schedule.warmup", "0 steps"]
    runs = []

    def start(*options: object, **environment: str) -> Started:
        arguments = [str(argument) for argument in ("train", *places, *size, *options)]
        runs.append(Started(tmp_path, tiny_plugin, arguments, **environment))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


@pytest.fixture
def folder(tmp_path):
    """The folder of a run named `run`."""
    return tmp_path / "runs" / "run"
