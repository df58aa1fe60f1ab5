"""What the training loop costs beside the jitted step alone, and what checkpoints every 100 steps cost, in one process.

Three ways to do the same steps take turns: the step alone on one batch that lies on the device, waited for every 5
steps; the loop of `flaxnets train` with its metrics and log, on that same batch; and the loop with the reading of its
data, too. Then one run saves every 200 steps, and each hundred steps from a save on, the save included, stand beside
the hundred after them, in which nothing is saved any more. An accelerator computes while the host works; a CPU does
both, which is the worst case.

    python experiments/benchmarks/training_loop.py
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import optax

from flaxnets import models
from flaxnets.config import Augmentation, Data, Optimizer
from flaxnets.data import images, pipeline
from flaxnets.training import display, loop, memory, mesh, optimizer, programs, signals, state, step
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.log import MetricsLog
from flaxnets.training.skips import Skips

NEVER = 10**9
WINDOW = 5  # steps after which metrics are read, as by default
SAVED = 100  # steps that one checkpoint may disturb


class Clock(display.Display):
    """Shows nothing, and notes when the metrics of each window have been read, which is before anything is saved."""

    def __init__(self, steps: int):
        super().__init__(steps, 0.0, quiet=True)
        self.marks: list[float] = []

    def training(self, metrics: dict[str, float]) -> None:
        self.marks.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200, help="of each turn; default: 200")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way; default: 5")
    parser.add_argument("--saves", type=int, default=20, help="checkpoints; default: 20")
    arguments = parser.parse_args()
    memory.keep_freed_memory()
    devices = mesh.data_mesh(arguments.batch)
    data = images.open_images(Data(batch_size=arguments.batch), Augmentation(), seed=0)
    model = models.create(arguments.arch, len(data.class_names), data.channels)
    definition, params, batch_stats = state.split_model(model)
    rate = optax.constant_schedule(1e-3)
    update = optimizer.make_optimizer(Optimizer(), rate)
    training = step.make_train_step(definition, update, rate=rate, mean=data.mean, std=data.std)
    parallel = mesh.data_parallel(training, devices)
    bare = jax.jit(parallel, donate_argnums=0)
    program = programs.Program(parallel, donate_state=True, cache=None, code=(), settings={})
    first = state.initial_state(params, batch_stats, update)

    def fresh() -> state.TrainState:
        return mesh.place(jax.tree.map(lambda a: a.copy(), first), mesh.copied(devices))

    (batch,) = itertools.islice(pipeline.on_devices(data.train, mesh.split(devices)), 1)

    program.compile(first, batch)

    def step_alone() -> list[float]:
        """Seconds a step of every window of 5 steps."""
        now, times = fresh(), []
        for _ in range(0, arguments.steps, WINDOW):
            began = time.perf_counter()
            for _ in range(WINDOW):
                now, metrics = bare(now, batch)
            jax.block_until_ready(metrics)
            times.append((time.perf_counter() - began) / WINDOW)
        return times[1:]

    def in_the_loop(*, reads_data: bool, steps: int = arguments.steps, save_every: int = NEVER) -> list[float]:
        """Likewise, from the end of the first window on."""

        def batches(start: int):
            return (
                pipeline.on_devices(data.train, mesh.split(devices), start) if reads_data else itertools.repeat(batch)
            )

        with tempfile.TemporaryDirectory() as folder, signals.StopRequest() as stop:
            checkpoints, log = Checkpoints(Path(folder) / "checkpoints", keep=2), MetricsLog(Path(folder), start=0)
            skips = Skips(NEVER, data.train.indices, log)
            loop.fit(
                fresh(),
                total_steps=steps,
                steps_per_epoch=NEVER,
                train_step=program,
                evaluation=lambda now: {"loss": 0.0, "accuracy": 0.0},
                batches=batches,
                log_due=loop.Every(WINDOW, steps),
                evaluation_due=loop.Every(save_every, NEVER),
                meter=loop.Meter(arguments.batch, skips),
                checkpoints=checkpoints,
                log=log,
                display=(clock := Clock(steps)),
                stop=stop,
            )
            checkpoints.close()
            log.close()
        return [(after - before) / WINDOW for before, after in itertools.pairwise(clock.marks)]

    def stolen() -> list[float]:
        """Of each checkpoint, the share of its hundred steps that it took."""
        steps = 2 * SAVED * (arguments.saves + 1)
        windows = in_the_loop(reads_data=True, steps=steps, save_every=2 * SAVED)
        first, hundred = 2 * SAVED // WINDOW - 1, SAVED // WINDOW
        seconds = [sum(windows[start : start + hundred]) for start in range(first, len(windows), hundred)]
        return [after / later - 1 for after, later in zip(seconds[::2], seconds[1::2], strict=True)]

    for way in (step_alone, lambda: in_the_loop(reads_data=False)):  # compile
        way()
    seconds: dict[str, list[float]] = {"step alone": [], "in the loop": [], "with its data": []}
    for _ in range(arguments.rounds):
        seconds["step alone"] += step_alone()
        seconds["in the loop"] += in_the_loop(reads_data=False)
        seconds["with its data"] += in_the_loop(reads_data=True)
    bare_seconds = statistics.median(seconds["step alone"])
    for name, windows in seconds.items():
        median = statistics.median(windows)
        print(f"{name:<13} {1e3 * median:6.2f} ms, median of windows, {median / bare_seconds - 1:+.1%}")
    shares = stolen()
    print(
        f"a checkpoint every {SAVED} steps: {statistics.median(shares):+.1%}, median of {len(shares)};",
        f"mean {statistics.mean(shares):+.1%}, standard deviation {statistics.stdev(shares):.1%}",
    )


if __name__ == "__main__":
    main()
