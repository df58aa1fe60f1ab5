"""What `flaxnets train --dry-run` says: the network, the data, the course of the learning rate, memory; in text."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxnets.config import Run
from flaxnets.data.images import Images
from flaxnets.part import in_steps
from flaxnets.training import parts
from flaxnets.training.mesh import AXIS
from flaxnets.training.state import ModelDefinition, TrainState, bytes_of

BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device during a training step; an estimate, because a compiler may keep more or less.

    Attributes:
      params, optimizer, averages: of the state; `params` with the batch statistics.
      gradients: of the parameters that are trained.
      kept: what the forward pass keeps for the gradient, of one part of the batch, parameters left out.
      batch: the images, as bytes.
    """

    params: int
    optimizer: int
    averages: int
    gradients: int
    kept: int
    batch: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(dataclasses.astuple(self))


def memory(
    definition: ModelDefinition,
    state: TrainState,
    images: jax.ShapeDtypeStruct,
    *,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
) -> Memory:
    """Estimate the memory of a training step by tracing it; nothing is computed or compiled.

    Args:
      definition, frozen, accumulate: as in `make_train_step`.
      state: shapes.
      images: shape and type of a device's part of the batch, [b, h, w, c].
    """
    trained = parts.trained(state.params, frozen)

    def residuals(_: jax.Array, params: dict, batch_stats: dict, trained: dict) -> Any:
        part = jnp.zeros((images.shape[0] // accumulate, *images.shape[1:]))

        def logits(trained: dict) -> jax.Array:
            return definition.train(parts.whole(trained, params), batch_stats, part, jax.random.key(0))[0]

        return jax.vjp(logits, trained)[1]

    # The axis is there for batch norm that is synchronised.
    one_device = jax.vmap(residuals, in_axes=(0, None, None, None), axis_name=AXIS)
    kept = jax.eval_shape(one_device, jnp.zeros(1), state.params, state.batch_stats, trained)
    return Memory(
        params=bytes_of((state.params, state.batch_stats)),
        optimizer=bytes_of(state.optimizer),
        averages=bytes_of(state.average),
        gradients=bytes_of(trained),
        kept=max(0, bytes_of(kept) - bytes_of(trained)),
        batch=bytes_of(images),
    )


def plot(rate: optax.Schedule, total_steps: int, width: int = 64, height: int = 6) -> list[str]:
    """The learning rate over the run as lines of text, with the largest value, and the first and last step."""
    edges = np.linspace(0, total_steps, width + 1)
    steps = np.unique(np.linspace(0, total_steps - 1, 16 * width).round().astype(int))
    values = np.asarray(jax.vmap(rate)(jnp.asarray(steps)), np.float64)
    by_column = np.interp((edges[:-1] + edges[1:]) / 2, steps, values)
    eighths = np.round(by_column / max(values.max(), 1e-30) * height * 8).astype(int)
    lines = []
    for row in reversed(range(height)):
        label = f"{values.max():.3g}" if row == height - 1 else "0" if row == 0 else ""
        lines.append(f"{label:>9} " + "".join(BLOCKS[min(max(n - 8 * row, 0), 8)] for n in eighths).rstrip())
    return [*lines, f"{'step':>9} {0:<{width - len(str(total_steps))}}{total_steps}"]


def rows(
    run: Run, data: Images, state: TrainState, found: Memory, *, frozen: Sequence[str], total_steps: int
) -> dict[str, str]:
    """The plan of a run as named lines; `state` is shapes."""
    options = "".join(f", {name}={value}" for name, value in run.options.items())
    kept = _count(state.params) - _count(parts.trained(state.params, frozen))
    steps_per_epoch = data.train_count / run.data.batch_size
    lengths = {"steps_per_epoch": steps_per_epoch, "batch_size": run.data.batch_size}
    devices = jax.device_count()
    shape = "x".join(map(str, data.batch["image"].shape[1:]))
    return {
        "network": f"{run.arch}{options}: {_count(state.params):,} parameters",
        "frozen": f"{', '.join(frozen)}: {kept:,} parameters" if frozen else "nothing",
        "data": f"{run.data.name}: {data.train_count:,} training and {data.test_count:,} test images, "
        f"{len(data.class_names)} classes, {shape}",
        "batch": f"{run.data.batch_size} images, {run.data.batch_size // devices} on each of {devices} x "
        f"{jax.devices()[0].device_kind}{f', in {run.accumulate} parts' if run.accumulate > 1 else ''}",
        "length": f"{total_steps:,} steps, {total_steps / steps_per_epoch:.4g} epochs of {steps_per_epoch:.1f} steps",
        "evaluation": f"every {max(1, in_steps(run.evaluate_every, **lengths)):,} steps",
        "memory": describe_memory(found),
        "learning rate": f"{run.optimizer.name}, {run.schedule.name}, warm-up of "
        f"{in_steps(run.schedule.warmup, **lengths):,} steps",
    }


def describe_memory(found: Memory) -> str:
    """The estimate in one line."""
    named = {
        "parameters": found.params,
        "optimiser": found.optimizer,
        "averages": found.averages,
        "gradients": found.gradients,
        "kept for the gradient": found.kept,
        "batch": found.batch,
    }
    shown = ", ".join(f"{name} {_mebibytes(size)}" for name, size in named.items() if size)
    return f"{_mebibytes(found.total)} a device, estimated: {shown}"


def _count(params: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**20:.2f} MiB"
