"""Learning rates: each schedule beside its formula, and units."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.config import parse_run
from flaxnets.errors import ConfigError
from flaxnets.part import in_steps
from flaxnets.recipe import Optimizer, Schedule
from flaxnets.training.schedules import learning_rate, scaled_peak

PEAK, TOTAL, WARMUP = 0.4, 120, 10


def cosine(lowest, cycles, cycle_decay):
    def rate(step):
        length = TOTAL // cycles
        cycle, step = divmod(min(step, TOTAL - 1e-9), length)
        peak = PEAK * cycle_decay**cycle
        if step < WARMUP:
            return peak * step / WARMUP
        fall = (1 + math.cos(math.pi * (step - WARMUP) / (length - WARMUP))) / 2
        return peak * (lowest + (1 - lowest) * fall)

    return rate


def after_warmup(course):
    return lambda step: PEAK * step / WARMUP if step < WARMUP else PEAK * course(step)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, cosine(0.0, 1, 1.0)),
        ({"lowest": 0.1}, cosine(0.1, 1, 1.0)),
        ({"cycles": 3, "cycle_decay": 0.5, "lowest": 0.05}, cosine(0.05, 3, 0.5)),
        ({"name": "constant"}, after_warmup(lambda step: 1)),
        ({"name": "step", "decay_every": "2 epochs", "decay": 0.3}, after_warmup(lambda step: 0.3 ** (step // 40))),
        ({"name": "exponential", "decay_every": "1 epoch"}, after_warmup(lambda step: 0.1 ** (step / 20))),
        (
            {"name": "polynomial", "lowest": 0.2},
            after_warmup(lambda step: 0.2 + 0.8 * (1 - (step - WARMUP) / (TOTAL - WARMUP)) ** 2),
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_schedule_follows_its_formula_at_every_step(settings, expected):
    schedule = Schedule(warmup="0.5 epochs", **settings)
    rate = learning_rate(schedule, PEAK, total_steps=TOTAL, steps_per_epoch=20, batch_size=64)
    # A cosine that restarts ends a cycle where the next begins, so the last step of the run is of the last cycle.
    found = jax.jit(rate)(jnp.arange(TOTAL + 1))
    np.testing.assert_allclose(found, [expected(step) for step in range(TOTAL + 1)], atol=2e-7)


def test_a_run_without_warmup_starts_at_the_peak():
    for name in ("cosine", "constant"):
        schedule = Schedule(name=name, warmup="0 steps")
        rate = learning_rate(schedule, PEAK, total_steps=9, steps_per_epoch=3, batch_size=1)
        assert float(rate(0)) == pytest.approx(PEAK)


def test_the_peak_is_in_proportion_to_the_batch():
    assert scaled_peak(Optimizer(peak_lr=0.1), 1024) == 0.4
    assert scaled_peak(Optimizer(name="lamb"), 2048) == 0.005  # Wightman et al. 2021, table 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": "5 steps"}, "The warm-up of 5 steps leaves nothing of a run of 5; lower --schedule.warmup, or"),
        ({"warmup": "3 steps", "cycles": 2}, "The warm-up of 3 steps leaves nothing of a cycle of 2; lower --schedule"),
    ],
)
def test_a_warmup_as_long_as_the_run_is_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        learning_rate(Schedule(**settings), PEAK, total_steps=5, steps_per_epoch=1, batch_size=1)


@given(st.integers(0, 10**7), st.sampled_from(["step", "epoch", "image"]), st.integers(1, 999), st.integers(1, 99))
def test_durations_are_converted_by_their_unit(number, unit, per_epoch, batch_size):
    duration = Schedule(warmup=f" {number:_}{unit}s").warmup
    steps = {"step": number, "epoch": number * per_epoch, "image": number / batch_size}[unit]
    assert in_steps(duration, per_epoch, batch_size) == min(round(steps), 2**31 - 1)  # what a state can count
    assert Schedule(warmup=duration).warmup == duration == f"{number} {unit}" + "s" * (number != 1)


@pytest.mark.parametrize("text", ["5", "5 weeks", "-1 epochs", "epochs", "1.2.3 epochs", "5 epochs 3"])
def test_a_duration_without_a_unit_is_refused(text):
    with pytest.raises(ConfigError) as error:
        parse_run(["--schedule.warmup", text])
    assert str(error.value) == (
        f"schedule.warmup cannot be {text!r}: value error, give a number and its unit, such as `5 epochs`, `500 steps` "
        "or `1_000_000 images`; change --schedule.warmup."
    )


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"^evaluate_every cannot be '0 epochs': value error, give more than 0; ch"):
        parse_run(["--evaluate-every", "0 epochs"])
