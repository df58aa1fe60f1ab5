"""Weights out of run folders: which checkpoint, which tensors, and what is said where there are none."""

import contextlib
import json
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import flaxnets
from flaxnets.config import Data, Run
from flaxnets.errors import RunFolderError, WeightsError
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.folder import create_folder
from flaxnets.training.state import initial_state, split_model
from flaxnets.weights.trained import read_run

OPTIONS = {"width": 0.125}
SIZES = {"num_classes": 3, "in_channels": 1}


def tensors_of(model: nnx.Module) -> dict[str, np.ndarray]:
    weights = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in weights}


@pytest.fixture(scope="module")
def models():
    """Networks of seeds 0 to 2, which a run would have after so many steps."""
    return [flaxnets.create("resnet18", **SIZES, **OPTIONS, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def written(tmp_path_factory, models):
    """A run whose second of three checkpoints is the best."""
    tmp_path = tmp_path_factory.mktemp("trained")
    run = Run(arch="resnet18", options=OPTIONS, data=Data(image_size=32))
    facts = {"class_names": ["a", "b", "c"], "mean": [0.3], "std": [0.2]}
    create_folder(tmp_path / "run", run, facts)
    with contextlib.closing(Checkpoints(tmp_path / "run" / "checkpoints", keep=3)) as checkpoints:
        for step, (model, accuracy) in enumerate(zip(models, (0.5, 0.75, 0.25), strict=True)):
            _, params, batch_stats = split_model(model)
            state = initial_state(params, batch_stats, optax.adam(0.1))
            checkpoints.save(step, jax.device_put(state, jax.devices()[0]), accuracy)
    return tmp_path / "run"


@pytest.fixture
def folder(written, tmp_path):
    """A copy of it, which a test may damage."""
    return shutil.copytree(written, tmp_path / "run")


def test_a_run_says_what_its_network_is(folder):
    run = read_run(folder)
    assert (run.arch, run.options, run.channels, run.image_size) == ("resnet18", OPTIONS, 1, 32)
    assert (run.class_names, run.mean, run.std) == (("a", "b", "c"), (0.3,), (0.2,))
    assert (run.step, run.accuracy) == (1, 0.75)


def test_the_best_checkpoint_comes_back_to_the_last_bit(folder, models):
    expected = tensors_of(models[1])
    found = read_run(folder).tensors()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    again = tensors_of(flaxnets.create("resnet18", **SIZES, **OPTIONS, weights=folder, seed=9))
    assert all((again[name] == expected[name]).all() for name in expected)


def test_arrays_that_read_well_and_are_wrong_are_found_by_their_checksums(folder):
    """Another checkpoint's arrays in place of this one's: the files themselves are in order."""
    best = folder / "checkpoints" / "1"
    shutil.rmtree(best / "default")
    shutil.copytree(folder / "checkpoints" / "2" / "default", best / "default")
    with pytest.raises(RunFolderError, match=r"The checkpoint of step 1 in .* is damaged .* move .*checkpoints/1 away"):
        read_run(folder).tensors()


def test_a_checkpoint_of_another_version_is_refused(folder):
    file = folder / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    metadata["custom_metadata"] |= {"format": 9, "flaxnets": "7.5"}
    file.write_text(json.dumps(metadata))
    with pytest.raises(
        RunFolderError, match=r"was written by flaxnets 7\.5 in another form; read it with that version"
    ):
        read_run(folder).tensors()


def test_averages_of_the_parameters_come_first(folder, models):
    _, params, batch_stats = split_model(models[2])
    state = initial_state(params, batch_stats, optax.adam(0.1), keep_average=True)
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    with contextlib.closing(Checkpoints(folder / "checkpoints", keep=3)) as checkpoints:
        checkpoints.save(3, jax.device_put(state, jax.devices()[0]), 0.9)
    kernel = "stages.3.1.second.convolution.kernel"
    np.testing.assert_array_equal(read_run(folder).tensors()[kernel], tensors_of(models[2])[kernel])


def test_a_classifier_of_other_classes_starts_anew(folder, models, caplog):
    model = flaxnets.create("resnet18", num_classes=7, in_channels=1, **OPTIONS, weights=folder)
    assert "The weights are of other classes" in caplog.text
    np.testing.assert_array_equal(tensors_of(model)["stem.layers.0.norm.mean"], np.zeros(8))
    kernel = "stages.3.1.second.convolution.kernel"
    np.testing.assert_array_equal(tensors_of(model)[kernel], tensors_of(models[1])[kernel])


def test_without_measured_accuracy_the_newest_is_taken(folder):
    for file in folder.glob("checkpoints/*/metrics/metrics"):
        file.unlink()
    assert (read_run(folder).step, read_run(folder).accuracy) == (2, None)


def test_what_cannot_be_used_is_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"is a run of resnet18, whose .* --arch resnet18 --options width 0\.125\."):
        flaxnets.create("resnet34", weights=folder)
    with pytest.raises(WeightsError, match=r"Of another shape: .* Give the name, channels and options"):
        flaxnets.create("resnet18", **SIZES, width=0.25, weights=folder)
    with pytest.raises(RunFolderError, match=r"^There is no run in .*; give a folder that `flaxnets train` wrote\.$"):
        flaxnets.create("resnet18", weights=tmp_path)
    best = folder / "checkpoints" / "1"
    for file in (best / "default").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RunFolderError, match=r"The checkpoint of step 1 in .* is damaged .* move .*checkpoints/1 away"):
        flaxnets.create("resnet18", **SIZES, **OPTIONS, weights=folder)
    best.rename(folder / "aside")
    assert read_run(folder).step == 0
    for step in ("0", "2"):
        (folder / "checkpoints" / step).rename(folder / f"aside-{step}")
    with pytest.raises(RunFolderError, match=r"has no checkpoint yet; wait for its first evaluation, or resume it\.$"):
        read_run(folder)
    (folder / "run.json").write_text(json.dumps({"run": {}}))
    with pytest.raises(RunFolderError, match=r"run\.json is damaged; give another run\.$"):
        read_run(folder)
