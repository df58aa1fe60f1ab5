"""What tools open: run folders, weights files, names of architectures; and what they refuse."""

import argparse
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import flaxnets
from flaxnets import registry
from flaxnets.config import Data, Run
from flaxnets.data.images import decide_input, open_images
from flaxnets.errors import FlaxnetsError, RunFolderError
from flaxnets.tools.trained import Trained, add_network, open_network
from flaxnets.weights.layouts import slots
from flaxnets.weights.trained import read_run


def open_as(source, *options, **keywords) -> Trained:
    parser = argparse.ArgumentParser()
    add_network(parser)
    return open_network(str(source), parser.parse_args(list(map(str, options))), **keywords)


def write(file, arch="resnet18", layout=None, **making):
    """A model of random weights and running averages, and its weights in a file."""
    model = flaxnets.create(arch, **making)
    random = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        change = (
            random.uniform(0.5, 1.5, variable.shape) if path[-1] == "var" else random.normal(0, 0.1, variable.shape)
        )
        variable[...] = jax.numpy.asarray(change, "float32")
    state = dict(nnx.to_flat_state(nnx.state(model)))
    tensors = {slot.name: slot.write(np.asarray(state[slot.path][...])) for slot in slots(model, layout)}
    safetensors.numpy.save_file(tensors, file)
    return model


def test_a_run_knows_its_network_and_its_images(trained_run):
    opened = open_as(trained_run.folder)
    record = json.loads((trained_run.folder / "run.json").read_text())
    assert opened.arch == "tiny_net"
    assert opened.class_names == tuple(sorted(opened.class_names)) == tuple(record["class_names"])
    assert (list(opened.mean), list(opened.std)) == (record["mean"], record["std"])
    assert (opened.image_size, opened.channels) == (16, 3)
    assert opened.data
    assert opened.data.name == f"folder:{trained_run.pictures}"
    assert [type(transform).__name__ for transform in opened.transforms] == ["Resize"]
    again = flaxnets.create("tiny_net", 10, weights=trained_run.folder)
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    np.testing.assert_allclose(opened.model(images), again(images), rtol=1e-5, atol=1e-5)


def test_a_file_has_as_many_classes_and_channels_as_its_tensors_say(tmp_path):
    model = write(tmp_path / "a.safetensors", num_classes=3, in_channels=1, width=0.03)
    (tmp_path / "class_indices.json").write_text('{"0": "daisy", "1": "rose", "2": "tulip"}')
    network = ["--arch", "resnet18", "--options", "width", 0.03]
    opened = open_as(tmp_path / "a.safetensors", *network, "--classes", tmp_path / "class_indices.json")
    assert opened.class_names == ("daisy", "rose", "tulip")
    assert (opened.image_size, opened.channels, len(opened.std)) == (224, 1, 1)
    assert opened.mean[0] == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 1), np.float32)
    np.testing.assert_allclose(opened.model(images), model(images), rtol=1e-4, atol=1e-5)
    assert not jax.tree.leaves(nnx.state(opened.model, nnx.BatchStat))  # folded
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert open_as(tmp_path / "a.safetensors", *network, "--classes", tmp_path / "names.txt").class_names[2] == "c"
    opened = open_as(tmp_path / "a.safetensors", *network, "--image-size", 64, "--centre-crop", 1, fold=False)
    assert opened.class_names == ("0", "1", "2")
    assert opened.transforms[0].size == opened.image_size == 64
    assert opened.transforms[0].ratio == 1
    assert jax.tree.leaves(nnx.state(opened.model, nnx.BatchStat))


def test_training_from_weights_has_their_input(trained_run, tmp_path, data_dir):
    run = Run(data=Data(dir=data_dir))
    decided, statistics = decide_input(run)
    assert (decided.data.image_size, statistics) == (32, None)
    published = registry.get("resnet18")
    (tmp_path / "a.pth").touch()
    decided, statistics = decide_input(run.model_copy(update={"arch": "resnet18", "weights": tmp_path / "a.pth"}))
    assert (decided.data.image_size, statistics) == (224, (published.mean, published.std))
    opened = open_images(decided.data, decided.augmentation, 0, statistics)  # grey digits
    assert opened.train[0]["image"].shape == (64, 224, 224, 1)
    assert opened.mean == (pytest.approx(sum(published.mean) / 3),)
    again = read_run(trained_run.folder)
    decided, statistics = decide_input(run.model_copy(update={"weights": trained_run.folder}))
    assert (decided.data.image_size, statistics) == (16, (again.mean, again.std))
    own = run.model_copy(update={"weights": trained_run.folder, "data": Data(image_size=48)})
    assert decide_input(own)[0].data.image_size == 48


def test_class_names_are_a_file_of_their_own(trained_run):
    names = json.loads((trained_run.folder / "class_indices.json").read_text())
    assert names == {str(label): name for label, name in enumerate(open_as(trained_run.folder).class_names)}


def test_an_architecture_will_do_where_values_do_not_matter(trained_run, caplog):
    opened = open_as("tiny_net", untrained=True)
    assert opened.model(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 1000)
    assert "tiny_net has random weights" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["run"].pop("augmentation"),
        lambda record: record["run"].update(augmentation=None),
        lambda record: record["run"].update(options=None),
        lambda record: record["run"].update(arch=5),
        lambda record: record["run"].update(data=[]),
        lambda record: record["run"]["data"].update(image_size="x"),
        lambda record: record.update(mean=["a"]),
        lambda record: record.update(class_names=[1, 2]),
        lambda record: record.update(class_names=["one"]),
    ],
)
def test_a_damaged_record_is_told(trained_run, damage, tmp_path):
    run = shutil.copytree(trained_run.folder, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    damage(record)
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match=r"run\.json is damaged; give another run\.$"):
        open_as(run)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("runs/none", [], "There is no runs/none; give a run folder, or a weights file with --arch."),
        (300 * "a", [], f"There is no run folder, weights file or architecture '{300 * 'a'}'. Give one that exists."),
        (300 * "a" + ".pth", ["--arch", "resnet18"], "aaa.pth: File name too long; give a .safetensors or .pth file"),
        ("resnt18", [], "There is no run folder, weights file or architecture 'resnt18'. Did you mean resnet18"),
        ("resnet18", [], "resnet18 is an architecture without weights, whose answers would be random; give a run"),
        (".", [], "There is no run in .; give a folder that `flaxnets train` wrote."),
        ("new", [], "The run in new has no checkpoint yet; wait for its first evaluation, or resume it."),
        ("new", ["--arch", "resnet18"], "new is a run, which knows its network; leave out --arch, --options and"),
        ("none.pth", ["--arch", "resnet18"], "Cannot read none.pth: No such file or directory; give a "),
        ("a.safetensors", [], "a.safetensors does not say which network its weights are of; add --arch NAME."),
        ("a.safetensors", ["--arch", "resnet18"], "is of images of 4 channels; give weights for grey or colour"),
        ("a.safetensors", ["--image-size", 0], "--image-size cannot be 0; give a whole number above 0."),
        ("a.safetensors", ["--centre-crop", 2], "--centre-crop cannot be 2.0; give a share above 0, at most 1."),
        ("b.safetensors", ["--arch", "tiny_net", "--classes", "two"], "two names 2 classes, and the weights have 3;"),
        ("b.safetensors", ["--arch", "tiny_net", "--classes", "none"], "Cannot read none: No such file or directory;"),
    ],
)
def test_mistakes_are_refused(trained_run, source, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_bytes((trained_run.folder / "run.json").read_bytes())
    (tmp_path / "two").write_text("a\nb\n")
    if source == "a.safetensors":
        write(source, "resnet18", in_channels=4, width=0.125)
        options = [*options, "--options", "width", 0.125]
    if source == "b.safetensors":
        write(source, "tiny_net", num_classes=3)
    with pytest.raises(FlaxnetsError) as error:
        open_as(source, *options)
    assert message in str(error.value)
