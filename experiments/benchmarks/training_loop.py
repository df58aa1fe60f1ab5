"""What the training loop costs beside the jitted step alone, and what checkpoints every 100 steps cost, in one process.

Four ways to do the same steps take turns: the step alone on one batch that lies on the device, waited for every 5
steps; the loop of `flaxnets train` with its metrics and log, on that same batch; the loop with the reading of its data,
too; and that with a checkpoint every 100 steps. The first 50 steps are left out: then 500 steps have five checkpoints,
each written while training goes on. An accelerator computes while the host works; a CPU does both, which is the worst
case.

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
SAVE_EVERY = 100
LEFT_OUT = SAVE_EVERY // 2 // WINDOW  # windows at the start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=550)
    parser.add_argument("--rounds", type=int, default=2)
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

    def step_alone() -> list[float]:
        """Seconds a step of every window of 5 steps."""
        now, times = fresh(), []
        for _ in range(0, arguments.steps, WINDOW):
            began = time.perf_counter()
            for _ in range(WINDOW):
                now, metrics = bare(now, batch)
            jax.block_until_ready(metrics)
            times.append((time.perf_counter() - began) / WINDOW)
        return times[LEFT_OUT:]

    def in_the_loop(*, reads_data: bool, save_every: int = NEVER) -> list[float]:
        """Likewise; what is still being written after the last step belongs to the last window."""
        marks = []

        def batches(start: int):
            read = pipeline.on_devices(data.train, mesh.split(devices), start)
            for number, each in enumerate(read if reads_data else itertools.repeat(batch)):
                if number % WINDOW == 0:  # the loop has just read the metrics of the steps before
                    marks.append(time.perf_counter())
                yield each

        with tempfile.TemporaryDirectory() as folder, signals.StopRequest() as stop:
            checkpoints, log = Checkpoints(Path(folder) / "checkpoints", keep=2), MetricsLog(Path(folder), start=0)
            skips = Skips(NEVER, data.train.indices, log)
            now, _ = loop.fit(
                fresh(),
                total_steps=arguments.steps,
                steps_per_epoch=NEVER,
                train_step=program,
                evaluation=lambda now: {"loss": 0.0, "accuracy": 0.0},
                batches=batches,
                log_due=loop.Every(WINDOW, arguments.steps),
                evaluation_due=loop.Every(save_every, NEVER),
                meter=loop.Meter(arguments.batch, skips),
                checkpoints=checkpoints,
                log=log,
                display=display.Display(arguments.steps, 0.0, quiet=True),
                stop=stop,
            )
            jax.block_until_ready(now)
            checkpoints.newest()
            marks.append(time.perf_counter())
            checkpoints.close()
            log.close()
        return [(after - before) / WINDOW for before, after in itertools.pairwise(marks)][LEFT_OUT:]

    for way in (step_alone, lambda: in_the_loop(reads_data=False)):  # compile
        way()
    seconds: dict[str, list[float]] = {"step alone": [], "in the loop": [], "with its data": []}
    shares = []
    for _ in range(arguments.rounds):
        seconds["step alone"] += step_alone()
        seconds["in the loop"] += in_the_loop(reads_data=False)
        plain = in_the_loop(reads_data=True)
        seconds["with its data"] += plain
        saving = in_the_loop(reads_data=True, save_every=SAVE_EVERY)
        shares.append(sum(saving) / sum(plain) - 1)
    bare_seconds = statistics.median(seconds["step alone"])
    for name, windows in seconds.items():
        median = statistics.median(windows)
        print(f"{name:<13} {1e3 * median:6.2f} ms, median of windows, {median / bare_seconds - 1:+.1%}")
    print(
        f"checkpoints every {SAVE_EVERY} steps: {statistics.median(shares):+.1%}, of rounds",
        *map("{:+.1%}".format, shares),
    )


if __name__ == "__main__":
    main()
