"""The loop hands a device its next work before it asks for results, so that the device never waits."""

import time

import jax
import jax.numpy as jnp
import pytest

from flaxnets.training import loop
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.display import Display
from flaxnets.training.log import MetricsLog, read_metrics
from flaxnets.training.signals import StopRequest
from flaxnets.training.skips import Skips
from flaxnets.training.state import TrainState

LAST = 6


class Device:
    """Work of half a second and more, and whether each was handed over while the one before it was not done yet."""

    def __init__(self):
        self.overlapped: list[bool] = []
        self._matrix = jnp.full((256, 256), 1 / 256)
        self._work = jax.jit(lambda matrix: jax.lax.fori_loop(0, 1000, lambda _, product: product @ matrix, matrix))
        self._newest = self._work(self._matrix).block_until_ready()

    def begin(self) -> jax.Array:
        """Begin the next work: 1., later."""
        self.overlapped.append(not self._newest.is_ready())
        self._newest = self._work(self._matrix)
        return self._newest.sum() / 256


def test_metrics_are_read_while_the_next_step_runs(tmp_path):
    device = Device()
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, zero, {"kernel": jnp.ones(2)}, {}, (), zero, {})

    def train_step(state: list[jax.Array], batch: int):
        ones = dict.fromkeys(("count", "loss", "gradient_norm", "learning_rate"), jnp.ones(()))
        return state, {**ones, "correct": device.begin(), "skipped": jnp.zeros(())}

    log = MetricsLog(tmp_path, start=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    with StopRequest() as stop:
        loop.fit(
            state,
            total_steps=LAST,
            steps_per_epoch=LAST,
            train_step=train_step,
            evaluation=lambda state: {"loss": 0.0, "accuracy": 1.0, "count": 1.0},
            batches=lambda start: iter(range(start + 1, LAST + 1)),
            log_due=loop.Every(1, LAST),
            evaluation_due=loop.Every(LAST, LAST),
            meter=loop.Meter(1, Skips(1, lambda step: [step], log)),
            checkpoints=checkpoints,
            log=log,
            display=Display(LAST, time.perf_counter(), quiet=True),
            stop=stop,
        )
    checkpoints.close()
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path) if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    # The first step is waited for: until then, the time is that of compilation.
    assert device.overlapped == [False, False, True, True, True, True]


def test_a_batch_is_evaluated_while_the_next_is_handed_over():
    device = Device()

    def eval_step(state: None, batch: int) -> dict[str, jax.Array]:
        return {"count": jnp.ones(()), "loss": jnp.zeros(()), "correct": device.begin()}

    with StopRequest() as stop:
        found = loop.evaluate(eval_step, None, iter(range(1, LAST + 1)), stop)  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx({"loss": 0.0, "accuracy": 1.0, "count": LAST})
    assert device.overlapped == [False, True, True, True, True, True]
