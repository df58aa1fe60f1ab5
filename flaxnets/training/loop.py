"""The training loop."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from flaxnets.errors import DivergenceError
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.display import Display
from flaxnets.training.log import MetricsLog
from flaxnets.training.memory import peak_memory
from flaxnets.training.signals import StopRequest
from flaxnets.training.skips import Skips
from flaxnets.training.state import TrainState

MEETING = 10  # steps, of training or evaluation, after which several processes ask each other whether to stop


@dataclasses.dataclass(frozen=True)
class Every:
    """Due at every multiple of `interval` steps, and at the last one."""

    interval: int
    last: int

    def is_due(self, step: int) -> bool:
        """Whether it is due after this step."""
        return step % self.interval == 0 or step == self.last


class Meter:
    """Collects the metrics of steps without waiting for them, until `read` is called.

    Args:
      batch_size: images a step, over all devices.
      skips: sees every step, and which of them changed nothing.
    """

    def __init__(self, batch_size: int, skips: Skips):
        self._batch_size = batch_size
        self._skips = skips
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock anew, after something other than training."""
        self._started = time.perf_counter()
        self._images = 0
        self._waited = 0.0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; how long the loop waits for them is measured."""
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield batch

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Keep the metrics of one step."""
        self._waiting.append((step, metrics))
        self._images += self._batch_size

    def read(self) -> dict[str, float]:
        """Means over the steps since the last reading that were not skipped, and the state of affairs at the last one.

        `data_wait` is the share of the time that the loop waited for batches. The device may have been busy meanwhile.
        `memory` is the most that was in use so far, in GB. Without a step that counts there are no `loss` and
        `accuracy`.

        Raises:
          DivergenceError: too many steps in a row were skipped.
        """
        steps = [(step, jax.tree.map(float, metrics)) for step, metrics in jax.device_get(self._waiting)]
        seconds = time.perf_counter() - self._started
        self._waiting.clear()
        finite = [metrics for step, metrics in steps if self._skips.is_finite(step, metrics)]
        count = sum(metrics["count"] for metrics in finite)
        means = {"loss": "loss", "accuracy": "correct"} if finite else {}
        read = {
            **{name: sum(metrics[total] for metrics in finite) / count for name, total in means.items()},
            **({"gradient_norm": finite[-1]["gradient_norm"]} if finite else {}),
            "learning_rate": steps[-1][1]["learning_rate"],
            "skipped": steps[-1][1]["skipped"],
            "images_per_second": self._images / seconds,
            "data_wait": self._waited / seconds,
            "memory": peak_memory() / 1e9,
        }
        self.restart()
        return read


def evaluate(
    eval_step: Callable[[TrainState, Any], dict[str, jax.Array]],
    state: TrainState,
    batches: Iterator[Any],
    stop: StopRequest,
) -> dict[str, float] | None:
    """Mean loss and accuracy over all examples, each counted once whatever the batch size or number of devices.

    None if a stop is requested meanwhile.
    """
    sums = []
    for number, batch in enumerate(batches):
        sums.append(eval_step(state, batch))
        jax.block_until_ready(sums[-2:-1])  # the device has its next batch meanwhile, and no more than that
        if stop.requested(meeting=number % MEETING == 0):
            return None
    sums = jax.device_get(sums)
    total = {name: sum(float(each[name]) for each in sums) for name in ("count", "loss", "correct")}
    return {
        "loss": total["loss"] / total["count"],
        "accuracy": total["correct"] / total["count"],
        "count": total["count"],
    }


def fit(
    state: TrainState,
    *,
    total_steps: int,
    steps_per_epoch: float,
    train_step: Callable[[list[jax.Array], Any], tuple[list[jax.Array], dict[str, jax.Array]]],
    evaluation: Callable[[TrainState], dict[str, float] | None],
    batches: Callable[[int], Iterator[Any]],
    log_due: Every,
    evaluation_due: Every,
    meter: Meter,
    checkpoints: Checkpoints,
    log: MetricsLog,
    display: Display,
    stop: StopRequest,
) -> tuple[TrainState, bool]:
    """Train from `state.step` to `total_steps`, or until a stop is requested: the last state, and whether it stopped.

    Args:
      state: where to start; its memory is given up.
      total_steps, steps_per_epoch: length of the run, and of a pass over the training images.
      train_step: one step; state and new state are lists of arrays, which JAX hands over faster than trees.
      evaluation: one evaluation of a state; None if that was stopped.
      batches: training batches from a step on.
      log_due, evaluation_due: when to log, and when to evaluate and save.
      meter, checkpoints, log, display: where metrics and states go.
      stop: asked after each step.

    Raises:
      DivergenceError: loss or gradient left the finite numbers for too long; the checkpoints are from before that.
    """
    start = int(state.step)
    trained: dict[str, float] = {}
    unread: int | None = None  # step whose metrics are read when the next one has begun: the device goes on meanwhile

    def read(step: int) -> dict[str, float]:
        """The metrics of the steps up to this one, logged and shown."""
        reading = meter.read()
        log.write(step, "train", reading)
        display.training(reading)
        return reading

    def test(step: int) -> float | None:
        """The accuracy that chooses the best state, that of the averages if there are any; logged and shown.

        None if a stop is requested meanwhile.
        """
        tested = evaluation(state)
        if tested is None:
            return None
        if not math.isfinite(tested["loss"]):
            raise DivergenceError(f"The test loss is {tested['loss']} after step {step}")
        log.write(step, "test", tested)
        display.evaluated(step, step / steps_per_epoch, tested, trained)
        return tested.get("ema_accuracy", tested["accuracy"])

    display.advance(start)
    if start and evaluation_due.is_due(start) and log.newest("test").get("step") != start:  # it was stopped meanwhile
        trained = log.newest("train")
        accuracy = test(start)
        if accuracy is None:
            return state, True
        checkpoints.add_accuracy(start, accuracy)
    meter.restart()
    leaves, structure = jax.tree.flatten(state)
    for step, batch in zip(range(start + 1, total_steps + 1), meter.timed(batches(start)), strict=False):
        leaves, metrics = train_step(leaves, batch)
        if unread:
            trained, unread = read(unread), None
        meter.add(step, metrics)
        display.advance(step)
        if step == start + 1:
            jax.block_until_ready(metrics)
            display.first_step(step)
            meter.restart()  # compilation is not training
        evaluated, accuracy = evaluation_due.is_due(step), None
        stopped = stop.requested(meeting=evaluated or step % MEETING == 0)
        if evaluated or stopped:
            state = jax.tree.unflatten(structure, leaves)
            trained = read(step)
        elif log_due.is_due(step):
            unread = step
        if evaluated:
            accuracy = test(step)
            stopped = stopped or accuracy is None
        if evaluated or stopped:
            checkpoints.save(step, state, accuracy)
            meter.restart()
        if stopped:
            return state, True
    return jax.tree.unflatten(structure, leaves), False
