"""What a run computes, put together from its settings and the facts of its data: network, step, first state; no arrays.

The one place where settings become a training step: `flaxnets train` runs it, `flaxnets plan` only compiles it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from flaxnets import models
from flaxnets.config import Run
from flaxnets.errors import ConfigError
from flaxnets.part import MOST_STEPS
from flaxnets.training import losses, mixing, optimizer, parts, schedules, state, step


@dataclasses.dataclass(frozen=True)
class Computation:
    """All that is known of a run's computation before there is an array.

    Attributes:
      steps_per_epoch, total_steps: how long the run is.
      rate: the learning rate by the number of updates made.
      making: what `models.create` takes besides the name, the number of classes and the channels.
      definition, params, batch_stats: the network, as of `split_model`, with shapes in place of arrays.
      frozen: its parts that stay.
      train_step, eval_step: pure functions of one device, see `step`.
      first_state: makes the state before the first step of parameters and batch statistics.
    """

    steps_per_epoch: float
    total_steps: int
    rate: optax.Schedule
    making: dict[str, Any]
    definition: state.ModelDefinition
    params: dict
    batch_stats: dict
    frozen: Sequence[str]
    train_step: Callable[[state.TrainState, step.Batch], tuple[state.TrainState, step.Metrics]]
    eval_step: Callable[[state.TrainState, step.Batch], step.Metrics]
    first_state: Callable[[dict, dict], state.TrainState]

    @property
    def num_params(self) -> int:
        """Parameters of the network."""
        return sum(parameter.size for parameter in jax.tree.leaves(self.params))

    def state_shapes(self) -> state.TrainState:
        """The state before the first step, with shapes in place of arrays."""
        return jax.eval_shape(self.first_state, self.params, self.batch_stats)


def computation_of(
    run: Run,
    mix: mixing.Mixing | None,
    *,
    train_count: int,
    num_classes: int,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Computation:
    """Put a run's computation together, by tracing the network; nothing is computed or compiled.

    Args:
      run: the settings.
      mix: how a device mixes its images, see `mixing_of`.
      train_count, num_classes, channels, mean, std: of the data, as in `Images`.

    Raises:
      FlaxnetsError: settings that do not fit the architecture or one another.
    """
    steps_per_epoch = train_count / run.data.batch_size
    total_steps = run.steps or max(1, round(run.epochs * steps_per_epoch))
    if total_steps > MOST_STEPS:
        raise ConfigError(f"A run of {total_steps:.3g} steps is longer than can be counted; give fewer --epochs.")
    peak = schedules.scaled_peak(run.optimizer, run.data.batch_size)
    rate = schedules.learning_rate(
        run.schedule,
        peak,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=run.data.batch_size,
    )
    update = optimizer.make_optimizer(run.optimizer, rate)

    making = {"dtype": jax.numpy.dtype(run.dtype), **run.options}
    abstract = models.abstract(run.arch, num_classes, channels, **making)
    frozen = parts.frozen_parts(abstract, run.freeze)
    definition, params, batch_stats = state.split_model(
        abstract, batch_norm=run.batch_norm, frozen=frozen, rematerialise=run.rematerialise
    )

    def first_state(params: dict, batch_stats: dict) -> state.TrainState:
        return state.initial_state(params, batch_stats, update, run.seed, frozen=frozen, keep_average=run.ema > 0)

    return Computation(
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        rate=rate,
        making=making,
        definition=definition,
        params=params,
        batch_stats=batch_stats,
        frozen=frozen,
        train_step=step.make_train_step(
            definition,
            update,
            rate=rate,
            mean=mean,
            std=std,
            loss=losses.LOSSES[run.loss],
            label_smoothing=run.label_smoothing,
            mixing=mix,
            frozen=frozen,
            accumulate=run.accumulate,
            average=run.ema,
        ),
        eval_step=step.make_eval_step(definition, mean=mean, std=std, accumulate=run.accumulate),
        first_state=first_state,
    )
