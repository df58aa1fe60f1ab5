"""Checkpoints: what is kept, what comes back, and what happens to damaged ones."""

import contextlib
import gc
import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxnets.errors import RunFolderError
from flaxnets.training import mesh as meshes
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.state import TrainState, initial_state


def state_of(step: int, devices: int = 8) -> TrainState:
    """A state with the nesting of a real one: numbered stages, named parameters."""
    params = {"stages": {0: {0: {"kernel": jnp.full((3, 4), step + 0.5)}}}, "bias": jnp.arange(4.0) * step}
    state = initial_state(params, {"mean": jnp.ones(4) * step}, optax.sgd(0.1, momentum=0.9))
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )
    return jax.device_put(state.replace(step=jnp.int32(step)), meshes.copied(mesh))


def assert_same(a: TrainState, b: TrainState) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def folder(tmp_path):
    """Steps 1 to 4, of which 2 is the best and the newest two are kept besides."""
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints", keep=2)) as checkpoints:
        for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None)):
            checkpoints.save(step, state_of(step), accuracy)
        assert checkpoints.best() == (2, 0.9)
        assert checkpoints.newest() == 4
    return tmp_path / "checkpoints"


def steps_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_are_kept(folder):
    assert steps_in(folder) == ["2", "3", "4"]


@pytest.mark.parametrize("devices", [8, 2, 1])
def test_the_newest_comes_back_on_any_number_of_devices(folder, devices):
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        restored = checkpoints.restore_latest(state_of(0, devices))
    assert_same(restored, state_of(4))
    assert {len(array.sharding.device_set) for array in jax.tree.leaves(restored)} == {devices}


def damage(step_folder) -> None:
    """Cut every file of a checkpoint in half."""
    for file in [path for path in step_folder.rglob("*") if path.is_file()]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_newest_falls_back_to_the_one_before_and_is_kept_aside(folder, caplog):
    damage(folder / "4")
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        assert_same(checkpoints.restore_latest(state_of(0)), state_of(3))
        assert "Checkpoint 4 is damaged, now damaged-4, and the one before is used" in caplog.text
        checkpoints.save(4, state_of(4), 0.95)  # training reaches the step again
    assert steps_in(folder) == ["3", "4", "damaged-4"]
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        assert_same(checkpoints.restore_latest(state_of(0)), state_of(4))
        assert checkpoints.best() == (4, 0.95)


def test_nothing_readable_is_an_error_with_the_fix(folder, tmp_path):
    for step in (2, 3, 4):
        damage(folder / str(step))
    with (
        contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints,
        pytest.raises(RunFolderError, match=r"No checkpoint in .* can be restored; train anew under another"),
    ):
        checkpoints.restore_latest(state_of(0))
    with contextlib.closing(Checkpoints(tmp_path / "empty", keep=2)) as checkpoints:
        assert checkpoints.best() is None
        assert_same(checkpoints.restore_latest(state_of(7)), state_of(7))


def random_state(step: int) -> TrainState:
    """A state of incompressible numbers, so that most bits of its files are bits of arrays."""
    random = np.random.default_rng(step)
    return jax.tree.map(lambda a: jax.device_put(random.random(a.shape).astype(a.dtype), a.sharding), state_of(step, 1))


# Orbax leaves its other reads alone when one of them finds damage; Python remarks on that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_is_harmless_or_found_wherever_it_is(tmp_path, caplog, monkeypatch):
    for library in ("absl", "asyncio"):  # their records would hold what is damaged beyond this test
        monkeypatch.setattr(logging.getLogger(library), "disabled", True)
    good = tmp_path / "good"
    with contextlib.closing(Checkpoints(good, keep=2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, random_state(step), step / 10)
    files = sorted(file.relative_to(good) for file in (good / "2").rglob("*") if file.is_file())
    random, found = np.random.default_rng(0), set()
    for place in range(60):
        file, folder = files[place % len(files)], shutil.copytree(good, tmp_path / str(place))
        content = bytearray((folder / file).read_bytes())
        if not content:
            continue
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        (folder / file).write_bytes(content)
        with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
            restored = checkpoints.restore_latest(random_state(0))
        aside = (folder / "damaged-2").exists()
        assert_same(restored, random_state(1 if aside else 2))
        assert ("Checkpoint 2 is damaged" in caplog.text) == aside
        caplog.clear()
        assert aside or file.parent != Path("2/default/d"), "a bit of the arrays themselves"
        if aside:
            found.add(file)
    gc.collect()
    assert 5 <= len(found) < len(files)  # also metadata; not the marks of a finished save


def test_arrays_that_read_well_and_are_wrong_are_found_by_their_checksums(folder, caplog):
    """Another checkpoint's arrays in place of this one's: the files themselves are in order."""
    shutil.rmtree(folder / "4" / "default")
    shutil.copytree(folder / "3" / "default", folder / "4" / "default")
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        assert_same(checkpoints.restore_latest(state_of(0)), state_of(3))
    assert "its arrays are not those that were saved, by their checksums" in caplog.text


def test_arrays_whose_names_were_exchanged_are_found_by_the_checksum_of_their_layout(folder, caplog):
    file = folder / "4" / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    layout = metadata["custom_metadata"]["layout"]
    layout[0][0], layout[1][0] = layout[1][0], layout[0][0]
    file.write_text(json.dumps(metadata))
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        assert_same(checkpoints.restore_latest(state_of(0)), state_of(3))
    assert "its arrays are not those that were saved, by their checksums" in caplog.text


def test_a_device_without_memory_makes_no_checkpoint_a_damaged_one(folder, monkeypatch):
    def take_all(vectors, layout):
        with jax.ensure_compile_time_eval():
            jnp.zeros(10**14).block_until_ready()

    monkeypatch.setattr("flaxnets.training.checkpoint.unpack", take_all)
    with (
        contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints,
        pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"),
    ):
        checkpoints.restore_latest(state_of(0))
    assert not list(folder.glob("damaged-*"))


def test_a_checkpoint_of_another_network_is_refused_and_stays(folder):
    other = state_of(0)
    other = other.replace(params={**other.params, "bias": jnp.zeros(5)})
    with (
        contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints,
        pytest.raises(RunFolderError) as error,
    ):
        checkpoints.restore_latest(other)
    assert str(error.value) == (
        f"The checkpoints in {folder} are of another network: params/bias is 4 there and 5 here; give the settings and "
        "the data that they were made with, or another --name."
    )
    assert steps_in(folder) == ["2", "3", "4"]


def test_a_checkpoint_of_another_version_is_refused_and_stays(folder, monkeypatch):
    monkeypatch.setattr("flaxnets.training.checkpoint.FORMAT", 9)
    with (
        contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints,
        pytest.raises(RunFolderError, match=r"are by flaxnets 0\.1\.0, which keeps them in another form; continue the"),
    ):
        checkpoints.restore_latest(state_of(0))
    assert steps_in(folder) == ["2", "3", "4"]


def test_an_accuracy_can_be_added_to_a_saved_step(folder):
    with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
        checkpoints.add_accuracy(4, 0.95)
        assert checkpoints.best() == (4, 0.95)
    with contextlib.closing(Checkpoints(folder, keep=1)) as checkpoints:
        assert checkpoints.best() == (4, 0.95)
        checkpoints.save(5, state_of(5), 0.1)
    assert steps_in(folder) == ["4", "5"]
