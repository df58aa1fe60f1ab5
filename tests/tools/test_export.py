"""`flaxnets export`: others' names and shapes, what they have to know, and a card that no name can break."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml
from flax import nnx
from golden import NAMES, REFERENCES, checkpoint

import flaxnets
from flaxnets import models, registry
from flaxnets.cli import main
from flaxnets.config import Augmentation
from flaxnets.layers import ConvNorm, GlobalMean, classifier
from flaxnets.plugin import ImageClassifier
from flaxnets.tools.export_safetensors import files
from flaxnets.tools.trained import Trained
from flaxnets.weights.trained import TrainedRun

EVIL = '<script>x</script> "a" | `b` \n``` # $c$'
ARCHITECTURES = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())


def trained(folder, name, model, *, classes, channels=3, options=None, view=None, data="folder:/home/me/flowers"):
    """A network as `open_run` gives it."""
    settings = {"data.name": data, "weights": "/home/me/start.pth", "optimizer.peak_lr": 0.1}
    facts = {
        "arch": name,
        "options": options or {},
        "class_names": tuple(classes),
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "image_size": 64,
    }
    record = {"settings": settings, "versions": {"flaxnets": "0.1.0"}}
    run = TrainedRun(folder=folder, step=7, accuracy=0.5, record=record, **facts)
    return Trained(name="run", model=model, view=view or Augmentation(), run=run, **facts)


def exported(network, licence="unknown", layout=None) -> tuple[dict, dict, dict, str]:
    """Tensors, config.json, the head of the card and its text."""
    written = files(network, argparse.Namespace(license=licence, layout=layout))
    _, head, text = written["README.md"].decode().split("---\n", 2)
    tensors = safetensors.numpy.load(written["model.safetensors"])
    return tensors, json.loads(written["config.json"]), yaml.safe_load(head), text


@pytest.fixture(scope="module")
def small():
    """An inexpensive network that timm has, too, and the tensors that it is given in timm's layout."""
    tensors = checkpoint(dict(REFERENCES["mobilenet_v2_050"]["tensors"]))
    return models.filled("mobilenet_v2_050", tensors, 1000, 3), tensors


def test_tensors_are_those_of_timm_to_the_last_bit(small, tmp_path):
    model, tensors = small
    found, config, head, text = exported(trained(tmp_path, "mobilenet_v2_050", model, classes=map(str, range(1000))))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert config["architecture"] == REFERENCES["mobilenet_v2_050"]["model"] == "mobilenetv2_050"
    assert head["library_name"] == "timm"
    assert 'timm.create_model("local-dir:.", pretrained=True)' in text
    assert config["pretrained_cfg"]["first_conv"] == "conv_stem"
    assert config["pretrained_cfg"]["classifier"] == "classifier"


def test_tensors_are_those_of_torchvision_where_its_network_is_ours(tmp_path):
    tensors = checkpoint(dict(REFERENCES["mobilenet_v3_small"]["tensors"]))
    model = models.filled("mobilenet_v3_small", tensors, 1000, 3)
    network = trained(tmp_path, "mobilenet_v3_small", model, classes=map(str, range(1000)))
    found, _, head, text = exported(network)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert head["library_name"] == "torchvision"
    assert "torchvision.models.mobilenet_v3_small(num_classes=1000)" in text
    _, config, head, text = exported(network, layout="timm")  # whose batch norm has another epsilon
    assert (config["architecture"], head["library_name"]) == ("mobilenet_v3_small", "flaxnets")
    assert "import timm" not in text


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_called_what_their_library_calls_them(name):
    name = name.rpartition(":")[2]
    library, *words = ARCHITECTURES[name]["reference"].split()
    networks = {label: layout.networks for label, layout in registry.get(name).layouts.items()}
    known = {label: names[name] for label, names in networks.items() if name in names}
    if library in ("torchvision", "timm"):
        assert known[library] == words[1].partition("(")[0]
    else:
        assert known == {}


def test_options_make_a_network_that_only_flaxnets_has(small, tmp_path):
    network = trained(tmp_path, "mobilenet_v2_050", small[0], classes="ab", options={"stem": "small", "width": 0.5})
    _, config, head, text = exported(network)
    assert head["library_name"] == "flaxnets"
    assert config["flaxnets"] == {"arch": "mobilenet_v2_050", "options": {"stem": "small", "width": 0.5}}
    assert """2, 3, weights="model.safetensors", stem='small', width=0.5)""" in text
    assert "import timm" not in text


def test_grey_pictures_and_central_parts_are_told(tmp_path):
    model = models.create("mobilenet_v1_025", 2, 1)
    view = Augmentation(crop="random_resized", centre_crop=0.9)
    _, config, _, _ = exported(trained(tmp_path, "mobilenet_v1", model, classes="ab", channels=1, view=view))
    assert config["model_args"] == {"in_chans": 1}
    assert config["label_names"] == ["a", "b"]
    given = config["pretrained_cfg"]
    assert (given["input_size"], given["crop_pct"], given["crop_mode"]) == ([1, 64, 64], 0.9, "center")
    assert (given["mean"], given["std"], given["num_classes"]) == ([0.5], [0.25], 2)


def test_a_plugin_may_have_a_stem_without_a_kernel(tmp_path):
    rngs = nnx.Rngs(0)
    parts = {"stages": [[ConvNorm(3, 4, rngs=rngs)]], "head": GlobalMean(), "classifier": classifier(4, 2, rngs=rngs)}
    model = ImageClassifier(stem=nnx.Dropout(0.1, rngs=rngs), **parts)
    network = trained(tmp_path, "resnet18", model, classes="ab", data="folder:/home/me/bad\udcff")
    _, config, _, text = exported(network, layout="flaxnets")
    assert config["pretrained_cfg"]["classifier"] == "classifier"
    assert "first_conv" not in config["pretrained_cfg"]
    assert "bad\\udcff" in text


def test_the_card_tells_metrics_and_no_folder_of_the_machine_and_names_cannot_break_it(small, tmp_path):
    lines = [
        {"step": 6, "split": "test", "accuracy": 0.25, "loss": 2.0},
        {"step": 7, "split": "train", "accuracy": 0.75, "loss": 1.0},
        {"step": 7, "split": "test", "accuracy": 0.5, "loss": 1.5, "ema_accuracy": 0.625, "ema_loss": 1.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evil = EVIL.replace("/", "")  # which no folder's name has
    network = trained(tmp_path, "mobilenet_v2_050", small[0], classes=[EVIL, "b"], data=f"folder:/home/me/{evil}")
    _, _, head, text = exported(network, licence='cc0-1.0\nevil: "yes')
    assert head["license"] == 'cc0-1.0\nevil: "yes'
    assert "evil" not in head
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1 accuracy", "value": 0.625}]
    assert "| test accuracy | 62.50% |" in text
    assert "| test loss | 1.2500 |" in text
    assert "/home/me" not in text
    code = text.split("\n```")
    assert len(code) == 9  # four blocks
    assert "<script>" not in "".join(code[::2])
    assert json.loads(code[5].removeprefix("json")) == [EVIL, "b"]


def test_a_run_goes_out_and_comes_back_the_same(trained_run, tmp_path, capsys):
    out = tmp_path / "hub"
    assert main(["export", str(trained_run.folder), "--out", str(out), "--license", "apache-2.0"]) == 0
    assert capsys.readouterr().out.count("\n") == 4
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "class_indices.json", "config.json", "model.safetensors"
    ]  # fmt: skip
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    before, after = (
        flaxnets.create("tiny_net", 10, weights=weights) for weights in (trained_run.folder, out / "model.safetensors")
    )
    np.testing.assert_array_equal(before(images), after(images))
    record = json.loads((trained_run.folder / "run.json").read_text())
    names = json.loads((out / "class_indices.json").read_text())
    assert [names[str(index)] for index in range(10)] == record["class_names"]
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "apache-2.0"
    lines = [json.loads(line) for line in (trained_run.folder / "metrics.jsonl").read_text().splitlines()]
    best = max(line["accuracy"] for line in lines if line["split"] == "test")
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == best
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none", "--out", "hub"], "There is no run folder none; give a folder that `flaxnets train` wrote."),
        (["{run}", "--out", "mine"], "mine exists already and is left as it is; choose another name."),
        (["{run}", "--out", "no/hub"], "Cannot write no/hub: there is no folder no; make it, or choose another place."),
        (
            ["{run}", "--out", "hub", "--layout", "timm"],
            "tiny_net has no layout 'timm'. Give --layout one of flaxnets.",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(options, message, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert main(["export", *(option.format(run=trained_run.folder) for option in options)]) == 2
    output = capsys.readouterr()
    assert output.err == f"Error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list((tmp_path / "mine").iterdir())
