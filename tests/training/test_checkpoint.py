"""Checkpoints: what is kept, what comes back, and what happens to damaged ones."""

import contextlib

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
