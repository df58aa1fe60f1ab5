"""What a recipe may ask of a step: accumulation, averages, frozen parts and batch norm, rematerialisation, skips."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_networks import (
    BATCH,
    STATISTICS,
    assert_close,
    mesh_of,
    normed,
    prepared,
    run,
    with_dropout,
    without_norm,
)

from flaxnets import models
from flaxnets.errors import ConfigError, DivergenceError
from flaxnets.training import mesh as meshes
from flaxnets.training.log import MetricsLog, read_metrics
from flaxnets.training.loop import Meter
from flaxnets.training.losses import binary_cross_entropy, cross_entropy
from flaxnets.training.parts import frozen_parts, trained, whole
from flaxnets.training.skips import Skips
from flaxnets.training.step import make_eval_step


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize(
    ("build", "options"),
    [(without_norm, {"loss": binary_cross_entropy}), (normed, {"batch_norm": "frozen"})],
    ids=["without_norm", "frozen_norm"],
)
def test_accumulated_parts_equal_the_big_batch(build, options):
    at_once, state, _ = prepared(build, **options)
    in_parts, _, _ = prepared(build, accumulate=4, **options)
    (expected, metrics), (found, found_metrics) = run(at_once, state, 2), run(in_parts, state, 2)
    assert_close(found.params, expected.params, 1e-6)
    assert_close(found_metrics, metrics, 1e-5)
    before = leaves(state.params)
    assert all(np.abs(after - before[name]).max() > 1e-4 for name, after in leaves(found.params).items())


def test_evaluation_in_parts_takes_the_memory_of_one():
    _, state, definition = prepared(normed)
    shapes = {"image": ((64, 64, 64, 3), "uint8"), "label": ((64,), "int32"), "weight": ((64,), "float32")}
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    def temporary_bytes(accumulate: int) -> int:
        step = make_eval_step(definition, **STATISTICS, accumulate=accumulate)
        lowered = meshes.data_parallel(step, mesh_of(1)).lower(state, batch)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < temporary_bytes(1) / 6


def test_frozen_batch_norm_normalises_by_the_running_averages_and_keeps_them():
    step, state, definition = prepared(normed, batch_norm="frozen")
    found, _ = run(step, state, 1, 3)
    for name, average in leaves(found.batch_stats).items():
        np.testing.assert_array_equal(average, leaves(state.batch_stats)[name])
    images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    logits, _ = definition.train(found.params, found.batch_stats, images, jax.random.key(0))
    assert_close(logits, definition.infer(found.params, found.batch_stats, images), 1e-6)


def test_averages_follow_parameters_and_batch_statistics():
    step, state, _ = prepared(normed, keep_average=True, average=0.15)
    mesh = mesh_of(1)
    parallel = meshes.data_parallel(step, mesh)
    expected = leaves(state.average)
    for count in range(4):
        state, _ = parallel(state, BATCH)
        kept = min(0.15, (1 + count) / (10 + count))  # 0.1 at first, 0.15 from the second update on
        now = leaves({"params": state.params, "batch_stats": state.batch_stats})
        expected = {name: kept * expected[name] + (1 - kept) * now[name] for name in now}
    for name, average in leaves(state.average).items():
        np.testing.assert_allclose(average, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert_close(state.averaged().params, state.average["params"], 0)
    assert_close(state.averaged().batch_stats, state.average["batch_stats"], 0)


def test_a_frozen_part_keeps_parameters_and_averages_and_costs_no_gradient():
    (all_parts, state, _), (some, start, _) = prepared(normed), prepared(normed, frozen=("stem", "stages.0"))
    found, _ = run(some, start, 1, 3)
    before, after = leaves(start.params), leaves(found.params)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if "classifier" in name}
    for name, average in leaves(found.batch_stats).items():
        np.testing.assert_array_equal(average, leaves(start.batch_stats)[name])
    assert len(jax.tree.leaves(start.optimizer)) < len(jax.tree.leaves(state.optimizer))

    def flops(step, state):
        return meshes.data_parallel(step, mesh_of(1)).lower(state, BATCH).cost_analysis()["flops"]

    assert flops(some, start) < 0.6 * flops(all_parts, state)


@pytest.mark.parametrize(
    ("options", "kept"), [({"batch_norm": "frozen"}, ("stem", "stages")), ({"frozen": ("stem",)}, ("stem",))]
)
def test_running_averages_that_stay_do_so_to_the_last_bit_on_three_devices(options, kept):
    """The mean of three equal numbers may be another number."""
    step, state, _ = prepared(normed, **options)
    random = np.random.default_rng(0)
    drawn = jax.tree.map(lambda array: jnp.asarray(random.uniform(0.1, 1, array.shape), array.dtype), state.batch_stats)
    state = jax.device_put(dataclasses.replace(state, batch_stats=drawn), meshes.copied(mesh_of(3)))
    batch = jax.device_put({name: array[:30] for name, array in BATCH.items()}, meshes.split(mesh_of(3)))
    found, _ = meshes.data_parallel(step, mesh_of(3))(state, batch)
    for part in ("stem", "stages"):
        before, after = leaves(drawn[part]), leaves(found.batch_stats[part])
        assert all((before[name] == after[name]).all() for name in before) == (part in kept)


def test_dropout_of_a_frozen_part_is_off():
    _, state, definition = prepared(with_dropout, frozen=("stem", "stages.0", "head"))
    images = jnp.ones((4, 8, 8, 3))
    logits, _ = definition.train(state.params, state.batch_stats, images, jax.random.key(1))
    assert_close(logits, definition.infer(state.params, state.batch_stats, images), 0)


def test_what_comes_before_a_frozen_part_is_frozen_too():
    model = models.abstract("resnet18", 5, width=0.125)
    assert frozen_parts(model, ()) == ()
    assert frozen_parts(model, ("stem", "stages.0")) == frozen_parts(model, ("stages.0",)) == ("stem", "stages.0")
    everything = ("stem", "stages.0", "stages.1", "stages.2", "stages.3")
    assert frozen_parts(model, ("stages",)) == frozen_parts(model, ("stages.3",)) == everything
    assert frozen_parts(model, ("head",)) == (*everything, "head")
    with pytest.raises(ConfigError) as error:
        frozen_parts(model, ("stage.0",))
    assert str(error.value).startswith("There is no part 'stage.0' to freeze. Did you mean stages.0,")
    assert str(error.value).endswith(
        "Give --freeze one of stem, stages.0, stages.1, stages.2, stages.3, stages, head; what comes before it is "
        "frozen too."
    )


def test_parameters_are_parted_and_put_together_again():
    params = nnx.to_pure_dict(nnx.state(models.abstract("mobilenet_v2", 5, width=0.35), nnx.Param))
    for frozen in ((), ("stem",), ("stem", "stages.0"), ("stem", *(f"stages.{n}" for n in range(7)), "head")):
        part = trained(params, frozen)
        names = leaves(part).keys()
        for name in leaves(params):
            first, second = re.findall(r"\['?(\w+)'?\]", name)[:2]
            assert (name in names) == (first not in frozen and f"{first}.{second}" not in frozen)
        again = whole(jax.tree.map(lambda leaf: (leaf.shape,), part), params)
        assert leaves(jax.tree.map(lambda leaf: 0, again)).keys() >= leaves(params).keys() - names


def test_rematerialisation_changes_no_result_and_keeps_less():
    (plain, state, kept), (step, _, recomputed) = prepared(normed), prepared(normed, rematerialise=True)
    assert_close(run(step, state, 2), run(plain, state, 2), 1e-6)
    images = jnp.zeros((32, 8, 8, 3))

    def bytes_between(definition) -> int:
        def logits(params):
            return definition.train(params, state.batch_stats, images, jax.random.key(0))

        residuals = jax.eval_shape(lambda params: jax.vjp(logits, params)[1], state.params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

    assert bytes_between(recomputed) < 0.7 * bytes_between(kept)


def sometimes_infinite(logits, shares, label_smoothing):
    no_class = shares.sum(-1) == 0  # label 7 of 5
    return jnp.where(no_class, jnp.inf, cross_entropy(logits, shares, label_smoothing))


def test_a_step_that_is_not_finite_changes_nothing_but_the_counts():
    step, state, _ = prepared(normed, keep_average=True, average=0.9, loss=sometimes_infinite)
    parallel = meshes.data_parallel(step, mesh_of(8))
    bad = {**BATCH, "label": np.where(np.arange(32) == 5, 7, BATCH["label"]).astype(np.int32)}  # on one device of eight
    after_bad, metrics = parallel(state, bad)
    assert not np.isfinite(metrics["loss"])
    assert (int(after_bad.step), int(after_bad.skipped), int(metrics["skipped"])) == (1, 1, 1)
    same = after_bad.replace(step=state.step, skipped=state.skipped)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    after_good, metrics = parallel(after_bad, BATCH)
    assert np.isfinite(metrics["loss"])
    assert (int(after_good.step), int(metrics["skipped"])) == (2, 1)
    assert (np.asarray(after_good.params["classifier"]["kernel"]) != state.params["classifier"]["kernel"]).all()


def test_skipped_steps_are_logged_with_their_examples_and_end_the_run_at_the_limit(tmp_path, caplog):
    log = MetricsLog(tmp_path, start=0)
    meter = Meter(4, Skips(2, lambda step: [10 * step, 10 * step + 1], log))

    def step(number: int, loss: float) -> None:
        values = {"count": 4, "loss": loss, "correct": 2, "gradient_norm": 1.5, "learning_rate": 0.1, "skipped": number}
        meter.add(number, {name: jnp.float32(value) for name, value in values.items()})

    step(1, 8.0)
    step(2, float("nan"))
    step(3, 4.0)
    read = meter.read()
    assert (read["loss"], read["accuracy"], read["learning_rate"]) == (1.5, 0.5, pytest.approx(0.1))
    assert "Step 2 changed nothing: its loss is nan, its gradient norm 1.5. Its examples are in" in caplog.text
    step(4, float("inf"))
    assert "loss" not in meter.read()
    step(5, float("inf"))
    with pytest.raises(DivergenceError, match="Loss or gradient were not finite in 2 steps in a row, up to step 5"):
        meter.read()
    log.close()
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert lines[0] == {
        "step": 2, "split": "skipped", "loss": "nan", "gradient_norm": "1.5", "examples": [20, 21]
    }  # fmt: skip


def test_a_batch_must_split_into_equal_parts():
    meshes.require_equal_parts(8, 4)
    with pytest.raises(
        ConfigError, match=r"batch of 8 images cannot be computed in 3 .* an --accumulate that divides 8"
    ):
        meshes.require_equal_parts(8, 3)
