"""What training changes, as plain dictionaries; and what stays: the model's definition."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flaxnets.errors import ArchitectureError
from flaxnets.models import in_mode
from flaxnets.plugin import ImageClassifier
from flaxnets.recipe import BatchNorm
from flaxnets.training.mesh import AXIS
from flaxnets.training.parts import infer_in_parts, trained


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes.

    Attributes:
      step: number of steps made, int32.
      seed: of the step's randomness, uint32; here and not in the program, which serves all seeds.
      params: trained parameters, nested dictionaries of float32 arrays.
      batch_stats: running averages of batch norm, likewise.
      optimizer: optax's state, of the parameters that are not frozen.
      skipped: number of steps whose loss or gradient was not finite, so that they changed nothing, int32.
      average: `{"params": ..., "batch_stats": ...}`, exponential moving averages of both; empty where none are kept.
    """

    step: jax.Array
    seed: jax.Array
    params: dict[Any, Any]
    batch_stats: dict[Any, Any]
    optimizer: optax.OptState
    skipped: jax.Array
    average: dict[str, dict[Any, Any]]

    def averaged(self) -> "TrainState":
        """The same with the averages in place of parameters and batch statistics."""
        return self.replace(**self.average)  # pyright: ignore[reportAttributeAccessIssue] (flax.struct adds it)


@dataclasses.dataclass(frozen=True)
class ModelDefinition:
    """A model without its arrays, in both modes.

    Splitting once and merging inside the step costs a tenth of `nnx.jit`'s work a step.
    """

    training: nnx.GraphDef[ImageClassifier]
    inference: nnx.GraphDef[ImageClassifier]
    random_streams: nnx.State
    batch_norm: BatchNorm

    def train(self, params: dict, batch_stats: dict, images: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
        """Logits [b, classes] in training mode, and the new batch statistics; `key` drives dropout and its like."""
        model = nnx.merge(self.training, params, batch_stats, _seeded(self.random_streams, key))
        logits = model(images)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.RngState))))

    def infer(self, params: dict, batch_stats: dict, images: jax.Array) -> jax.Array:
        """Logits [b, classes] in inference mode."""
        streams = _seeded(self.random_streams, jax.random.key(0))
        return nnx.merge(self.inference, params, batch_stats, streams)(images)


def split_model(
    model: ImageClassifier,
    *,
    batch_norm: BatchNorm = "per_device",
    frozen: Sequence[str] = (),
    rematerialise: bool = False,
) -> tuple[ModelDefinition, dict, dict]:
    """A model's definition, parameters and batch statistics.

    Args:
      model: any model; its arrays are shared, not copied. One of shapes alone has the same definition.
      batch_norm: whether a training step normalises by the statistics of each device's images, by those of all
        devices', or by the running averages, which then stay as they are.
      frozen: parts, see `frozen_parts`, that infer while the others train.
      rematerialise: keep the feature maps between stages only, and compute those inside again for the gradient.

    Raises:
      ArchitectureError: the model keeps state that is neither parameter nor running average nor randomness.
    """
    training = nnx.view(
        model, deterministic=False, use_running_average=batch_norm == "frozen", raise_if_not_found=False
    )
    training.rematerialise = rematerialise
    infer_in_parts(training, frozen)
    if batch_norm == "synchronised":
        for _, module in nnx.iter_modules(training):
            if isinstance(module, nnx.BatchNorm):
                module.axis_name = AXIS
    definition, params, streams, batch_stats, rest = nnx.split(training, nnx.Param, nnx.RngState, nnx.BatchStat, ...)
    if jax.tree.leaves(rest):
        path = ".".join(map(str, nnx.to_flat_state(rest)[0][0]))
        raise ArchitectureError(
            f"{path} is neither nnx.Param nor nnx.BatchStat, so training would not know what to do with it; "
            "make it one of them, or a constant computed in __call__."
        )
    inference = nnx.graphdef(in_mode(model, training=False))
    return (
        ModelDefinition(definition, inference, streams, batch_norm),
        nnx.to_pure_dict(params),
        nnx.to_pure_dict(batch_stats),
    )


def initial_state(
    params: dict,
    batch_stats: dict,
    optimizer: optax.GradientTransformation,
    seed: int = 0,
    *,
    frozen: Sequence[str] = (),
    keep_average: bool = False,
) -> TrainState:
    """The state before the first step; `frozen` as in `split_model`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        batch_stats=batch_stats,
        optimizer=optimizer.init(trained(params, frozen)),
        skipped=jnp.zeros((), jnp.int32),
        average=jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if keep_average else {},
    )


def bytes_of(tree: Any) -> int:
    """Size of all arrays of a tree, or of what their shapes would take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _seeded(streams: nnx.State, key: jax.Array) -> dict:
    """Random streams that start anew from `key`, each in its own way."""
    counter = iter(range(len(jax.tree.leaves(streams))))

    def fresh(value: jax.Array) -> jax.Array:
        number = next(counter)
        is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        return jax.random.fold_in(key, number) if is_key else jnp.zeros(value.shape, value.dtype)

    return jax.tree.map(fresh, nnx.to_pure_dict(streams))
