"""Every recipe: those for ImageNet are planned for their own network and run two steps with a small one."""

import re
from pathlib import Path

import numpy as np
import pytest
from idx_files import write_idx

from flaxnets import registry
from flaxnets.cli import main
from flaxnets.config import load_experiment
from flaxnets.training.log import read_metrics
from flaxnets.training.schedules import scaled_peak

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
IMAGENET = sorted(path.stem for path in EXPERIMENTS.glob("*_imagenet.toml"))


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


@pytest.fixture
def without_imagenet(data_dir, tmp_path, monkeypatch):
    """Options that put digits in place of ImageNet, which no test machine has."""
    monkeypatch.chdir(tmp_path)
    options = ["--data.name", "flaxnets_digits", "--data.test", "test", "--data.channels", "3"]
    return [*options, "--data.dir", str(data_dir), "--data.batch-size", "64", "--data.image-size", "32"]


@pytest.mark.parametrize("name", IMAGENET)
def test_a_recipe_for_imagenet_is_planned(name, without_imagenet, capsys, tmp_path):
    file = EXPERIMENTS / f"{name}.toml"
    run = load_experiment(file)
    assert main(["train", "--experiment", str(file), "--dry-run", *without_imagenet]) == 0
    shown = capsys.readouterr().out
    params = int(re.search(r"([\d,]+) parameters", shown)[1].replace(",", ""))
    embedding = {"mobilenet_v1": 1024, "mobilenet_v2": 1280, "mobilenet_v3_large": 1280}.get(run.arch, 2048)
    assert params == registry.get(run.arch).num_params - 990 * (embedding + 1)  # digits have ten classes
    peak = float(re.search(r"^ *(\S+) [ ▁▂▃▄▅▆▇█]*[▁▂▃▄▅▆▇█]", shown, re.MULTILINE)[1])
    # A rate that falls every other epoch does so during the warm-up too.
    assert peak == pytest.approx(scaled_peak(run.optimizer, 64), rel=0.12)
    assert float(re.search(r"([\d.]+) epochs\s+of\s+22\.5", shown)[1]) == pytest.approx(run.epochs, rel=1e-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", IMAGENET)
def test_a_recipe_for_imagenet_trains_a_small_network(name, without_imagenet, tiny_plugin, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tiny_plugin)
    network = ["--arch", "tiny_net"]
    if "stochastic_depth" in load_experiment(EXPERIMENTS / f"{name}.toml").options:  # which tiny_net has not
        network = ["--arch", "resnet18", "--options", "width", "0.125", "stem", "small"]
    small = [*network, "--steps", "2", "--schedule.warmup", "0 steps"]
    places = ["--name", "run", "--compilation-cache", str(tmp_path / "compiled")]
    assert main(["train", "--experiment", str(EXPERIMENTS / f"{name}.toml"), *without_imagenet, *small, *places]) == 0
    (trained, tested) = read_metrics(tmp_path / "runs" / "run")
    assert (trained["step"], tested["step"], trained["skipped"]) == (2, 2, 0)
    assert np.isfinite([trained["loss"], tested["loss"]]).all()
    assert ("ema_accuracy" in tested) == (load_experiment(EXPERIMENTS / f"{name}.toml").ema > 0)
