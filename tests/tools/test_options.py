"""Options of an architecture on the command line."""

import json

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import flaxnets
from flaxnets import cli
from flaxnets.errors import ConfigError
from flaxnets.tools.options import read_options
from flaxnets.weights.layouts import slots


def test_values_are_numbers_truths_or_words():
    words = ["width", "0.5", "kernel_size", "3", "mlp_bias", "False", "stem", "small"]
    assert read_options(words, "cbam_resnet18") == {"width": 0.5, "kernel_size": 3, "mlp_bias": False, "stem": "small"}
    with pytest.raises(ConfigError, match=r"--options has no value for 'stem'; give NAME VALUE, such as width 0\.5"):
        read_options(words[:-1], "cbam_resnet18")
    for word, value in (("true", True), ("FALSE", False)):
        assert read_options(["mlp_bias", word], "cbam_resnet18") == {"mlp_bias": value}


@pytest.mark.parametrize(
    "line",
    [
        "summary resnet18 --options image_size 64",
        "summary resnet18 --options batch 64",
        "bench --arch resnet18 --options num_classes 5",
        "predict a.safetensors a.png --arch resnet18 --options in_channels 1",
        "convert a.safetensors b.safetensors --arch resnet18 --options num_classes 5",
        "export resnet18 --format stablehlo --out out --options seed 5",
    ],
)
def test_words_of_python_are_no_options(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_file({"classifier.bias": np.zeros(3, np.float32)}, "a.safetensors")
    assert cli.main(line.split()) == 2
    assert f"resnet18 takes no option {line.split()[-2]!r}." in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_summary_is_of_the_network_with_its_options(capsys):
    options = ["--options", "mlp_bias", "False", "spatial_norm", "False"]
    assert cli.main(["summary", "cbam_resnet18", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == 11_777_336
    assert cli.main(["summary", "resnet18", "--options", "wdth", "2"]) == 2
    assert "resnet18 takes no option 'wdth'. Did you mean width?" in capsys.readouterr().err


def test_convert_reads_a_network_with_its_options(tmp_path, capsys):
    model = flaxnets.create("mobilenet_v1", num_classes=3, width=0.1)
    leaves = {slot.path: slot for slot in slots(model, None)}
    state = dict(nnx.to_flat_state(nnx.state(model)))
    save_file({slot.name: np.asarray(state[path][...]) for path, slot in leaves.items()}, tmp_path / "a.safetensors")
    line = ["convert", f"{tmp_path}/a.safetensors", f"{tmp_path}/b.safetensors", "--arch", "mobilenet_v1"]
    assert cli.main(line) == 2  # of another width
    assert cli.main([*line, "--options", "width", "0.1"]) == 0
    written = load_file(tmp_path / "b.safetensors")
    assert len(written) == len(leaves)
