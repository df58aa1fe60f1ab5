"""`flaxnets bench`: how fast an architecture trains or infers on this machine, alone or beside another, in one run."""

import argparse
import json
import platform
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from flaxnets.errors import ConfigError
from flaxnets.tools.options import add_options, check_counts, read_options

# A round is so long that a clock's and a scheduler's moods do not show.
SECONDS_A_ROUND = 1.0


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets bench", description=description)
    parser.add_argument("file", nargs="?", help="exported file, whose time for one picture is taken by threads")
    parser.add_argument("--arch", default="resnet50", help="architecture, see `flaxnets list`; default: resnet50")
    parser.add_argument("--image-size", type=int, help="height and width in pixels; default: as published")
    parser.add_argument("--batch", type=int, default=16, help="images a step, over all devices; default: 16")
    parser.add_argument("--mode", choices=("train", "inference"), default="train", help="default: train")
    parser.add_argument(
        "--compare",
        choices=("plain", "torchvision", "torchvision-compiled"),
        help="time it in turns with XLA's plain convolutions, or with torchvision's network (needs torch)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; default: 5")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    check_counts(arguments, "batch", "rounds", "image_size")
    if arguments.file:
        for name in ("arch", "image_size", "batch", "mode", "compare", "options"):
            if getattr(arguments, name) != parser.get_default(name):
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} is not for an exported file, which is timed as it is; leave it out.")
        from flaxnets.tools import bench_exported

        found = bench_exported.measure(arguments.file, arguments.rounds)
        table = bench_exported.table
    else:
        found, table = _measure(arguments), _table
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        Console(highlight=False).print(table(found), markup=False)
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import jax

    from flaxnets import registry
    from flaxnets.summaries import summary
    from flaxnets.tools import contestants

    taken = read_options(arguments.options, arguments.arch)
    size = arguments.image_size or registry.get(arguments.arch).image_size
    macs = summary(arguments.arch, size, **taken).macs * (3 if arguments.mode == "train" else 1)
    work = (size, arguments.batch, arguments.mode)
    others: list[Any] = []
    if arguments.compare in ("torchvision", "torchvision-compiled"):  # first: it may be absent, and ours takes long
        compiled = arguments.compare == "torchvision-compiled"
        others.append(contestants.Torchvision(arguments.arch, *work, compiled=compiled))
    ours = contestants.Flaxnets(arguments.arch, taken, *work, plain=False)
    if arguments.compare == "plain":
        others.append(contestants.Flaxnets(arguments.arch, taken, *work, plain=True))
    elif others and others[0].num_params != ours.num_params:
        others[0].close()
        raise ConfigError(
            f"torchvision's {arguments.arch} has {others[0].num_params:,} parameters, this one {ours.num_params:,}; "
            "leave out --options to compare the same network."
        )
    everyone = [ours, *others]
    peak = contestants.matrix_product_peak()
    for each in everyone:
        each.run(1)
    steps = {each.name: max(1, round(SECONDS_A_ROUND / each.run(1))) for each in everyone}
    rounds: dict[str, list[float]] = {each.name: [] for each in everyone}
    for _ in range(arguments.rounds):
        for each in everyone:
            rounds[each.name].append(arguments.batch * steps[each.name] / each.run(steps[each.name]))
    results = []
    for each in everyone:
        speed = float(np.median(rounds[each.name]))
        results.append(
            {
                "name": each.name,
                "images_per_second": speed,
                "lowest": min(rounds[each.name]),
                "highest": max(rounds[each.name]),
                "macs_per_second": speed * macs,
                "share_of_peak": speed * macs / peak,
                "compile_seconds": each.compile_seconds,
                "memory_bytes": each.memory_bytes,
                "ratio": float(np.median(np.divide(rounds[ours.name], rounds[each.name]))),
            }
        )
        each.close()
    results[0]["overhead_seconds"] = ours.overhead_seconds()
    return {
        "arch": arguments.arch,
        "options": taken,
        "image_size": size,
        "batch": arguments.batch,
        "mode": arguments.mode,
        "rounds": arguments.rounds,
        "macs_per_image": macs,
        "peak_macs_per_second": peak,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "python": platform.python_version(),
        "results": results,
    }


def _table(found: dict[str, Any]) -> Table:
    title = f"{found['arch']}, {found['image_size']} px, batch {found['batch']}, {found['mode']}"
    where = f"{found['devices']}, JAX {found['jax']}, Python {found['python']}"
    table = Table(box=box.SIMPLE_HEAD, title=f"{title}\n{where}", title_style="", title_justify="left", pad_edge=False)
    table.add_column("")
    for each in found["results"]:
        table.add_column(each["name"], justify="right")

    def row(name: str, text) -> None:
        table.add_row(name, *(text(each) for each in found["results"]))

    row("images/s, median", lambda each: f"{each['images_per_second']:.1f}")
    row("lowest to highest", lambda each: f"{each['lowest']:.1f} to {each['highest']:.1f}")
    if len(found["results"]) > 1:
        row("flaxnets is faster", lambda each: f"{each['ratio']:.2f} times")
    row("multiply-adds/s", lambda each: f"{each['macs_per_second'] / 1e9:.1f} G")
    row(
        f"of a matrix product's {found['peak_macs_per_second'] / 1e9:.0f} G",
        lambda each: f"{each['share_of_peak']:.0%}",
    )
    row("compilation, first step", lambda each: f"{each['compile_seconds']:.1f} s")
    row("memory", lambda each: "-" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 2**20:.0f} MiB")
    row(
        "overhead a step",
        lambda each: f"{each['overhead_seconds'] * 1e3:.2f} ms" if "overhead_seconds" in each else "-",
    )
    return table
