"""`flaxnets convert` rewrites names and nothing else, and never harms a file."""

import numpy as np
import pytest
import safetensors.numpy
import torch_files as torch
from golden import abstract, checkpoint

from flaxnets import registry
from flaxnets.cli import main
from flaxnets.weights.files import read_weights
from flaxnets.weights.layouts import slots


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A mobilenet_v3_small of 5 classes and 2 input channels, as torchvision has it."""
    model = abstract("mobilenet_v3_small", num_classes=5, in_channels=2)
    layout = registry.get("mobilenet_v3_small").layouts["torchvision"]
    return checkpoint({slot.name: slot.shape for slot in slots(model, layout)})


@pytest.fixture
def source(tmp_path, tensors):
    file = tmp_path / "in.pth"
    file.write_bytes(torch.zip_file({"state_dict": {key: torch.tensor(array) for key, array in tensors.items()}}))
    return file


def convert(*options: object) -> int:
    return main(["convert", *map(str, options), "--arch", "mobilenet_v3_small"])


@pytest.mark.parametrize("layout", ["flaxnets", "torchvision", "timm"])
def test_out_and_back_is_bit_identical(tmp_path, source, tensors, layout, capsys):
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert convert(source, there, "--layout", layout) == 0
    assert convert(there, back) == 0
    assert f"in the layout of {layout}, 5 classes, 2 input channels" in capsys.readouterr().out
    found = read_weights(back)
    assert found.keys() == tensors.keys()
    for key, array in tensors.items():
        assert found[key].tobytes() == array.tobytes(), key
        assert found[key].shape == array.shape


def test_the_default_layout_is_that_of_the_source(tmp_path, source, tensors):
    assert convert(source, tmp_path / "out.safetensors") == 0
    assert read_weights(tmp_path / "out.safetensors").keys() == tensors.keys()


def test_weights_without_classifier_stay_without(tmp_path, tensors, capsys):
    source = tmp_path / "in.safetensors"
    without = {key: array for key, array in tensors.items() if not key.startswith("classifier.3")}
    source.write_bytes(safetensors.numpy.save(without))
    assert convert(source, tmp_path / "out.safetensors") == 0
    assert "0 classes" in capsys.readouterr().out
    assert read_weights(tmp_path / "out.safetensors").keys() == without.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["in.pth", "in.pth"], "in.pth exists; choose another name"),
        (["none.pth", "out.safetensors"], "Cannot read"),
        (["in.pth", "out.safetensors", "--layout", "tim"], "no layout 'tim'. Did you mean timm? Give --layout one of"),
        (["in.pth", "nowhere/out.safetensors"], "Cannot write"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(tmp_path, source, options, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = source.read_bytes()
    assert convert(*options) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == [source]
