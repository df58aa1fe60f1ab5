"""`flaxnets info`: what is known of an architecture before any model of it is made."""

import argparse
import json

from rich.console import Console
from rich.table import Table

from flaxnets import registry


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets info", description=description)
    parser.add_argument("name", help="architecture, see `flaxnets list`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    entry = registry.find(arguments.name)
    architecture = entry.load()
    facts = {
        "name": entry.label,
        "package": f"{entry.distribution} {entry.version}",
        "paper": architecture.paper,
        "num_params": architecture.num_params,
        "top1": architecture.top1,
        "image_size": architecture.image_size,
        "mean": architecture.mean,
        "std": architecture.std,
        "options": architecture.options,
        "layouts": ["flaxnets", *architecture.layouts],
    }
    if arguments.json:
        print(json.dumps(facts, indent=2, default=str))
        return 0
    size = architecture.image_size
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_row("name", facts["name"])
    table.add_row("package", facts["package"])
    table.add_row("paper", architecture.paper)
    table.add_row("parameters", f"{architecture.num_params:,} at 1000 classes")
    if architecture.top1:
        accuracy, source = architecture.top1
        table.add_row("ImageNet top-1", f"{accuracy:g} % ({source})")
    table.add_row("input", f"{size}x{size} pixels")
    table.add_row("mean", ", ".join(map(str, architecture.mean)))
    table.add_row("std", ", ".join(map(str, architecture.std)))
    table.add_row("options", "\n".join(f"{name}={value!r}" for name, value in architecture.options.items()) or "none")
    table.add_row("layouts", ", ".join(facts["layouts"]))
    Console(highlight=False).print(table, markup=False)
    return 0
