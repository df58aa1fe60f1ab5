"""How long an exported file takes for one picture, by threads, beside the network that it was made of.

Run as a program with the file, a number of rounds and the numbers of cores, it measures on these, and prints JSON.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from flaxnets.errors import ArchitectureError, ConfigError
from flaxnets.tools.exported import Exported, open_exported

THREADS = (1, 2)
SECONDS_A_ROUND = 0.5


def measure(file: str, rounds: int) -> dict[str, Any]:
    """Latency of a file, and of its architecture where that is installed, for each number of threads.

    XLA makes its threads when it starts, one for each core that it may use; so each number has a process of its own,
    which is bound to as many cores. The `load` of other formats has to take as many threads.

    Raises:
      WeightsError: the file cannot be used.
      ConfigError: the system cannot bind processes to cores.
    """
    opened = open_exported(file)
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("This system cannot bind a process to cores, which is how threads are counted; use Linux.")
    cores = sorted(os.sched_getaffinity(0))
    results = []
    for threads in [count for count in THREADS if count <= len(cores)]:
        child = [sys.executable, "-m", "flaxnets.tools.bench_exported", file, rounds, *cores[:threads]]
        done = subprocess.run(list(map(str, child)), stdout=subprocess.PIPE, check=True, text=True)
        results.append({"threads": threads, **json.loads(done.stdout)})
    description = opened.description
    return {
        "file": file,
        "precision": description.precision,
        "arch": opened.arch,
        "options": opened.options,
        "image_size": opened.image_size,
        "bytes": os.path.getsize(file),
        "rounds": rounds,
        "results": results,
    }


def table(found: dict[str, Any]) -> Table:
    """What `measure` found, for people."""
    what = f"{found['arch']}, {found['precision']}, {found['image_size']} px, {found['bytes']:,} bytes"
    title = f"{found['file']}\n{what}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="", title_justify="left", pad_edge=False)
    for column in ("one picture, median", *(f"{each['threads']} threads" for each in found["results"])):
        table.add_column(column.replace("1 threads", "1 thread"), justify="right" if table.columns else "left")
    for key, name in (("file", "the file"), ("model", "flaxnets' model")):
        table.add_row(name, *(_milliseconds(each[key]) for each in found["results"]))
    if all(each["model"] for each in found["results"]):
        table.add_row("the file is faster", *(f"{each['ratio']:.2f} times" for each in found["results"]))
    return table


def _milliseconds(latency: dict[str, float] | None) -> str:
    if latency is None:
        return "not installed"
    return f"{1e3 * latency['median']:.2f} ms, {1e3 * latency['percentile_95']:.2f} at 95 %"


def _measure_here(file: str, rounds: int) -> dict[str, Any]:
    """Latencies in seconds on the cores of this process; file and model in turns."""
    opened = open_exported(file)
    shape = opened.description.input_shape(1)[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    images = pixels if opened.description.input == "pixels" else (pixels / 255).astype(np.float32)
    everyone: dict[str, Callable[[], Any]] = {"file": lambda: opened.compute(images)}
    model = _model(opened)
    if model:
        everyone["model"] = lambda: np.asarray(model(pixels))
    for run in everyone.values():
        run()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in everyone}
    medians: dict[str, list[float]] = {name: [] for name in everyone}
    for _ in range(rounds):
        for name, run in everyone.items():
            began = time.perf_counter()
            once = []
            while time.perf_counter() - began < SECONDS_A_ROUND:
                start = time.perf_counter()
                run()
                once.append(time.perf_counter() - start)
            seconds[name] += once
            medians[name].append(float(np.median(once)))
    found: dict[str, Any] = {
        name: {"median": float(np.median(each)), "percentile_95": float(np.percentile(each, 95))}
        for name, each in seconds.items()
    }
    ratio = np.median(np.divide(medians["model"], medians["file"])) if model else None
    return {"model": None, **found, "ratio": None if ratio is None else float(ratio)}


def _model(opened: Exported) -> Callable[[np.ndarray], Any] | None:
    """The network that the file was made of, compiled for pixels; with other weights, which take as long."""
    import jax
    from flax import nnx

    from flaxnets import models
    from flaxnets.fold import fold_batch_norm
    from flaxnets.training.step import normalise

    try:
        model = models.create(opened.arch, len(opened.class_names), opened.channels, **opened.options)
    except ArchitectureError:  # not installed here
        return None
    graph, state = nnx.split(fold_batch_norm(model))
    logits = jax.jit(lambda state, pixels: nnx.merge(graph, state)(normalise(pixels, opened.mean, opened.std)))
    return lambda pixels: logits(state, pixels)


if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[3:]))  # before anything starts threads
    print(json.dumps(_measure_here(sys.argv[1], int(sys.argv[2]))))
