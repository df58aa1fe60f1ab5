"""What the training loop costs beside the jitted step alone, and what checkpoints every 100 steps cost, in one process.

Three ways to do the same steps take turns: the step alone on one batch that lies on the device; the loop of
`flaxnets train` with its data loading, metrics and log; and that loop with a checkpoint every 100 steps. An
accelerator computes while the host works; on a CPU both share the cores, so that the ratios are the worst case.

    python experiments/benchmarks/training_loop.py
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax

from flaxnets import models
from flaxnets.config import Augmentation, Data, Optimizer
from flaxnets.data import images, pipeline
from flaxnets.training import display, loop, memory, mesh, optimizer, programs, signals, state, step
from flaxnets.training.checkpoint import Checkpoints
from flaxnets.training.log import MetricsLog

NEVER = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    memory.keep_freed_memory()
    devices = mesh.data_mesh(arguments.batch)
    data = images.open_images(Data(batch_size=arguments.batch), Augmentation(), seed=0)
    model = models.create(arguments.arch, len(data.class_names), data.channels)
    definition, params, batch_stats = state.split_model(model)
    update = optimizer.sgd(Optimizer(), optimizer.learning_rate(Optimizer(), arguments.batch, 0, NEVER))
    training = step.make_train_step(definition, update, mean=data.mean, std=data.std)
    parallel = mesh.data_parallel(training, devices)
    bare = jax.jit(parallel, donate_argnums=0)
    program = programs.Program(parallel, donate_state=True, cache=None, code=(), settings={})
    first = state.initial_state(params, batch_stats, update)

    def fresh() -> state.TrainState:
        return mesh.place(jax.tree.map(lambda a: a.copy(), first), mesh.copied(devices))

    (batch,) = itertools.islice(pipeline.on_devices(data.train, mesh.split(devices)), 1)

    def step_alone() -> float:
        now, began = fresh(), 0.0
        for number in range(arguments.steps + 1):
            now, metrics = bare(now, batch)
            if number == 0:
                jax.block_until_ready(now)
                began = time.perf_counter()
        jax.block_until_ready((now, metrics))
        return (time.perf_counter() - began) / arguments.steps

    def in_the_loop(save_every: int) -> float:
        began = []

        def batches(start: int):
            for number, batch in enumerate(pipeline.on_devices(data.train, mesh.split(devices), start)):
                if number == 1:  # the first step waits for the first batches
                    began.append(time.perf_counter())
                yield batch

        with tempfile.TemporaryDirectory() as folder, signals.StopRequest() as stop:
            checkpoints, log = Checkpoints(Path(folder) / "checkpoints", keep=2), MetricsLog(Path(folder), start=0)
            now, _ = loop.fit(
                fresh(),
                total_steps=arguments.steps + 1,
                steps_per_epoch=NEVER,
                train_step=program,
                evaluation=lambda now: {"loss": 0.0, "accuracy": 0.0},
                batches=batches,
                log_due=loop.Every(5, arguments.steps + 1),
                evaluation_due=loop.Every(save_every, NEVER),
                meter=loop.Meter(arguments.batch),
                checkpoints=checkpoints,
                log=log,
                display=display.Display(arguments.steps, 0.0, quiet=True),
                stop=stop,
            )
            jax.block_until_ready(now)
            checkpoints.newest()  # the writing in the background belongs to the cost
            seconds = (time.perf_counter() - began[0]) / arguments.steps
            checkpoints.close()
            log.close()
        return seconds

    for way in (step_alone, lambda: in_the_loop(NEVER)):  # compile
        way()
    ratios: list[tuple[float, float]] = []
    for _ in range(arguments.rounds):
        alone, looped, saving = step_alone(), in_the_loop(NEVER), in_the_loop(100)
        ratios.append((looped / alone - 1, saving / looped - 1))
        print(
            f"step alone {1e3 * alone:.2f} ms, in the loop {1e3 * looped:.2f} ms ({ratios[-1][0]:+.1%}), "
            f"with checkpoints {1e3 * saving:.2f} ms ({ratios[-1][1]:+.1%})",
            flush=True,
        )
    loop_cost, saving_cost = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"median: the loop costs {loop_cost:+.1%}, checkpoints every 100 steps {saving_cost:+.1%}")


if __name__ == "__main__":
    main()
