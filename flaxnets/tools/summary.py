"""`flaxnets summary`: what an architecture costs, layer by layer, as a table or JSON."""

import argparse
import dataclasses
import json

from rich import box
from rich.console import Console
from rich.table import Table

from flaxnets.summaries import Row, Summary, summary
from flaxnets.tools.options import add_options, read_options


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets summary", description=description)
    parser.add_argument("name", help="architecture, see `flaxnets list`")
    parser.add_argument("--image-size", type=int, help="height and width in pixels; default: as published")
    parser.add_argument("--batch", type=int, default=1, help="images, for output shapes and memory; default: 1")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    taken = read_options(arguments.options, arguments.name)
    found = summary(arguments.name, arguments.image_size, arguments.batch, **taken)
    if arguments.json:
        rows = [row._asdict() for row in found.rows]
        print(json.dumps({**dataclasses.asdict(found), "rows": rows}, indent=2))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 160  # a pipe has no edge to wrap at
        console.print(_table(found.rows, console.width), markup=False)
        console.print(_totals(found), markup=False)
    return 0


def _table(rows: tuple[Row, ...], width: int) -> Table:
    """A table of as many columns as a terminal of `width` characters has room for beside the layers' names."""
    columns = [
        # header, text of a row, justification, least width of the terminal
        ("layer", lambda row: row.path or row.kind, "left", 0),
        ("kind", lambda row: row.kind, "left", 100),
        ("output", lambda row: shape_text(row.output_shape), "left", 60),
        ("parameters", lambda row: count_text(row.params), "right", 0),
        ("multiply-adds", lambda row: count_text(row.macs), "right", 0),
        ("field", lambda row: count_text(row.receptive_field), "right", 80),
        ("stride", lambda row: count_text(row.stride), "right", 100),
    ]
    shown = [column for column in columns if column[-1] <= width]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header, _, justify, _ in shown:
        table.add_column(header, justify=justify, no_wrap=header != "layer", overflow="fold")
    for row in rows:
        table.add_row(*(text(row) for _, text, _, _ in shown))
    return table


def _totals(found: Summary) -> Table:
    table = Table.grid(padding=(0, 2))
    rows = {
        found.name: f"input {shape_text(found.input_shape)}",
        "parameters": f"{found.params:,}, and {found.batch_stats:,} running averages",
        "multiply-adds": f"{found.macs:,} an image",
        "receptive field": f"{found.receptive_field} pixels, stride {found.stride}",
        "memory": f"input {_mebibytes(found.input_bytes)}, parameters {_mebibytes(found.param_bytes)}, outputs of all "
        f"layers {_mebibytes(found.activation_bytes)}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def shape_text(shape: tuple[int, ...]) -> str:
    """`1x7x7x512`."""
    return "x".join(map(str, shape))


def count_text(number: int | None) -> str:
    """Whole below a million, then with three digits: 36,864; 118M; 4.09G."""
    if number is None:
        return ""
    for unit, letter in ((10**9, "G"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.{2 if number < 10 * unit else 1 if number < 100 * unit else 0}f}{letter}"
    return f"{number:,}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
