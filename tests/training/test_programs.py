"""Programs that are kept on disk compute the same, and are found again only where nothing has changed."""

import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.training import mesh as meshes
from flaxnets.training.programs import Program, cache_folder, loaded_files, use_compilation_cache

TRACES = []


def step(state, batch):
    TRACES.append("step")
    moved = {"w": state["w"] - batch["x"].sum()}
    return moved, {"sum": jax.lax.psum(batch["x"].sum(), "data")}


def metrics_only(state, batch):
    return {"product": jax.lax.psum((state["w"] * batch["x"]).sum(), "data")}


@pytest.fixture
def make(tmp_path):
    TRACES.clear()
    mesh = meshes.data_mesh(8)

    def program(function=step, cache=tmp_path, **settings):
        mapped = meshes.data_parallel(function, mesh)
        return Program(mapped, donate_state=False, cache=cache, code={__file__}, settings=settings)

    state = jax.device_put({"w": jnp.arange(3.0)}, meshes.copied(mesh))
    batch = jax.device_put({"x": np.arange(8.0)}, meshes.split(mesh))
    return program, state, batch


def test_a_kept_program_is_not_traced_again_and_computes_the_same(make):
    program, state, batch = make
    first = jax.device_get(program()(state, batch))
    second = jax.device_get(program()(state, batch))
    assert TRACES == ["step"]
    np.testing.assert_array_equal(first[0]["w"], second[0]["w"])
    assert first[1]["sum"] == second[1]["sum"] == 28


def test_a_step_may_return_metrics_alone(make):
    program, state, batch = make
    for _ in range(2):
        assert program(metrics_only)(state, batch)["product"] == 3 * 28


def test_a_compiled_program_takes_and_gives_a_state_as_a_list(make):
    program, state, batch = make

    def descend(state, batch):
        total = jax.lax.psum(batch["x"].sum(), "data")
        return {"w": state["w"] - total}, {"sum": total}

    compiled = program(descend)
    compiled.compile(state, batch)
    leaves = jax.tree.leaves(state)
    for moved in (28, 56):
        leaves, metrics = compiled(leaves, batch)
        np.testing.assert_array_equal(leaves, [np.arange(3) - moved])
        assert metrics["sum"] == 28
    np.testing.assert_array_equal(compiled(state, batch)[0]["w"], np.arange(3) - 28)


def test_other_settings_shapes_or_code_are_another_program(make, tmp_path):
    program, state, batch = make
    program(rate=1)(state, batch)
    program(rate=2)(state, batch)
    program(rate=1)({"w": state["w"][:2]}, batch)
    assert len(list(tmp_path.glob("*.exported"))) == len(TRACES) == 3


def test_a_damaged_file_is_made_anew(make, tmp_path, caplog):
    program, state, batch = make
    program()(state, batch)
    (file,) = tmp_path.glob("*.exported")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert program()(state, batch)[1]["sum"] == 28
    assert "Ignoring the damaged cache file" in caplog.text
    assert len(file.read_bytes()) == len(whole)


def test_without_a_cache_nothing_is_written(make, tmp_path):
    program, state, batch = make
    assert program(cache=None)(state, batch)[1]["sum"] == 28
    assert not list(tmp_path.iterdir())


def test_loaded_files_name_this_one():
    assert __file__ in loaded_files()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("where the folder should be")
    assert use_compilation_cache(tmp_path / "file" / "cache") is None
    assert "No compilation cache: cannot write" in caplog.text


def test_the_cache_of_a_user_who_does_not_exist_is_done_without(caplog):
    assert cache_folder(Path("~no-such-user/cache")) is None
    assert "No compilation cache: cannot write ~no-such-user/cache (Could not determine home dir" in caplog.text


@pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache")  # JAX's own, if a test has chosen one
def test_a_cache_that_is_full_costs_no_step(make, tmp_path, caplog):
    """A limit on the size of files stands for the disk."""
    program, state, batch = make
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert program()(state, batch)[1]["sum"] == 28
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"Cannot write the compilation cache {tmp_path}: File too large." in caplog.text
    assert not list(tmp_path.iterdir())
