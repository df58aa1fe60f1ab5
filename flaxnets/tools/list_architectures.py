"""`flaxnets list`: the installed architectures, by what their packages state; imports no plugin and no jax."""

import argparse
import json

from flaxnets import registry


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="flaxnets list", description=description)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names, such as 'resnet*'")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    rows = [
        {"name": entry.label, "package": f"{entry.distribution} {entry.version}", **entry.published()}
        for entry in registry.available(arguments.pattern)
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


def _print_table(rows: list[dict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("package", overflow="fold")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("paper", overflow="fold")
    for row in rows:
        parameters = f"{row['num_params']:,}" if "num_params" in row else "-"
        table.add_row(row["name"], row["package"], parameters, row.get("paper", "-"))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    console.print(table, markup=False)
