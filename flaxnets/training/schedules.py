"""The learning rate as a function of the step, all optax."""

import itertools
from typing import Any

import optax

from flaxnets.errors import ConfigError
from flaxnets.part import in_steps
from flaxnets.recipe import Optimizer, Schedule


def learning_rate(
    settings: Schedule, peak: float, *, total_steps: int, steps_per_epoch: float, batch_size: int
) -> optax.Schedule:
    """A linear warm-up from 0, then what the settings say.

    Args:
      settings: the course.
      peak: learning rate at the end of the warm-up, of this batch size: see `scaled_peak`.
      total_steps, steps_per_epoch, batch_size: of the run.

    Sources: Goyal et al. 2017, arXiv:1706.02677 (warm-up); Loshchilov and Hutter 2016, arXiv:1608.03983 (cosine,
    restarts); You et al. 2017, arXiv:1708.03888 (polynomial).

    Raises:
      ConfigError: the warm-up is as long as the run, or as one of its cycles.
    """
    warmup = in_steps(settings.warmup, steps_per_epoch, batch_size)
    cycles = settings.cycles if settings.name == "cosine" else 1
    if warmup >= total_steps // cycles:
        raise ConfigError(
            f"The warm-up of {warmup} steps leaves nothing of a {'cycle' if cycles > 1 else 'run'} of "
            f"{total_steps // cycles}; lower --schedule.warmup, or raise --epochs."
        )
    lowest = settings.lowest * peak
    if settings.name == "cosine":
        ends = [round(total_steps * cycle / cycles) for cycle in range(cycles + 1)]
        return optax.sgdr_schedule(
            [
                {
                    "init_value": 0.0,
                    "peak_value": peak * settings.cycle_decay**cycle,
                    "warmup_steps": warmup,
                    "decay_steps": end - start,
                    "end_value": lowest * settings.cycle_decay**cycle,
                }
                for cycle, (start, end) in enumerate(itertools.pairwise(ends))
            ]
        )
    every = max(1, in_steps(settings.decay_every, steps_per_epoch, batch_size))
    decayed = optax.exponential_decay(peak, every, settings.decay, staircase=settings.name == "step")
    courses: dict[str, optax.Schedule] = {
        "constant": optax.constant_schedule(peak),
        "polynomial": optax.polynomial_schedule(peak, lowest, settings.power, total_steps - warmup),
        "step": lambda count: decayed(count + warmup),  # decays are counted from the start of the run
        "exponential": lambda count: decayed(count + warmup),
    }
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), courses[settings.name]], [warmup])


def scaled_peak(settings: Optimizer, batch_size: int) -> float:
    """The highest rate, in proportion to the batch (Goyal et al. 2017, arXiv:1706.02677, section 2.1)."""
    peak_lr: Any = settings.with_published().peak_lr
    return peak_lr * batch_size / 256
