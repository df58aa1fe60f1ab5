"""`flaxnets bench`, on networks small enough to compile in seconds."""

import json

import jax
import pytest
from flax import nnx

from flaxnets import models
from flaxnets.cli import main
from flaxnets.fold import fold_batch_norm

SMALL = ["--arch", "mobilenet_v1_025", "--image-size", "32", "--batch", "8", "--rounds", "1"]


def test_times_a_training_step(capfd):
    network = ["resnet18", "--image-size", "32", "--options", "width", "0.125"]
    assert main(["bench", "--arch", *network, "--batch", "8", "--rounds", "1", "--mode", "train", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    [result] = found["results"]
    assert 0 < result["overhead_seconds"] < 8 / result["images_per_second"]
    assert main(["summary", *network, "--json"]) == 0
    assert found["macs_per_image"] == 3 * json.loads(capfd.readouterr().out)["macs"]


def test_times_itself_beside_plain_convolutions(capfd):
    assert main(["bench", *SMALL, "--mode", "inference", "--compare", "plain", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    fast, plain = found["results"]
    parameters = jax.tree.leaves(nnx.state(fold_batch_norm(models.create("mobilenet_v1_025", 1000))))
    assert plain["name"] == "flaxnets, plain convolutions"
    for each in (fast, plain):
        assert each["lowest"] <= each["images_per_second"] <= each["highest"]
        assert each["macs_per_second"] == pytest.approx(each["images_per_second"] * found["macs_per_image"])
        assert each["share_of_peak"] == pytest.approx(each["macs_per_second"] / found["peak_macs_per_second"])
        assert each["memory_bytes"] > sum(array.nbytes for array in parameters) + 8 * 32 * 32 * 3
    assert plain["ratio"] == pytest.approx(fast["images_per_second"] / plain["images_per_second"])
    assert fast["compile_seconds"] > 0


def test_prints_a_table_for_a_person(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["bench", *SMALL, "--mode", "inference", "--options", "dropout", "0.5"]) == 0
    text = capfd.readouterr().out
    assert "mobilenet_v1_025, 32 px, batch 8, inference" in text
    assert "images/s, median" in text
    assert max(map(len, text.splitlines())) <= 60


def test_absent_torch_is_said_in_one_sentence(tmp_path, monkeypatch, capfd):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(["bench", *SMALL, "--mode", "inference", "--compare", "torchvision"]) == 2
    error = capfd.readouterr().err
    assert error.strip() == (
        "Error: torch is not installed, so there is nothing to compare with; install torch and torchvision beside "
        "flaxnets, or leave out --compare."
    )


@pytest.mark.parametrize("option", ["batch", "rounds", "image-size"])
def test_impossible_numbers_are_refused(option, capfd):
    assert main(["bench", f"--{option}", "0"]) == 2
    assert capfd.readouterr().err == f"Error: --{option} cannot be 0; give a whole number above 0.\n"
