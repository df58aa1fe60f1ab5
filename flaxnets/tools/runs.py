"""`flaxnets runs`: run folders as a table; imports no jax."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from flaxnets.training.folder import is_training
from flaxnets.training.log import read_metrics


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="flaxnets runs", description=description)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="folder of run folders: runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(options)
    rows = [run for file in sorted(arguments.folder.glob("*/run.json")) if (run := _describe(file.parent))]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows)
    else:
        print(f"There are no runs in {arguments.folder}; start one by `flaxnets train`.")
    return 0


def _describe(folder: Path) -> dict[str, Any] | None:
    """A row of the table; None for a folder whose run.json cannot be read."""
    try:
        record = json.loads((folder / "run.json").read_text())
        run = record["run"]
        row = {"name": folder.name, "arch": run["arch"], "data": run["data"]["name"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    total_steps = record.get("total_steps")
    if not all(isinstance(value, str) for value in row.values()) or not isinstance(total_steps, int | None):
        return None
    metrics = read_metrics(folder)
    step = metrics[-1]["step"] if metrics else 0
    changed = max(file.stat().st_mtime for file in folder.glob("*.json*"))
    finished = bool(metrics) and metrics[-1]["split"] == "test" and step == total_steps
    return {
        **row,
        "state": "running" if is_training(folder) else "done" if finished else "stopped",
        "step": step,
        "total_steps": total_steps,
        "best_accuracy": max((line["accuracy"] for line in metrics if line["split"] == "test"), default=None),
        "age_seconds": round(time.time() - changed),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "architecture", "data", "state"):
        table.add_column(name, overflow="fold")
    for name in ("step", "best accuracy", "last change"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        best, total = row["best_accuracy"], row["total_steps"]
        table.add_row(
            *(row[name] for name in ("name", "arch", "data", "state")),
            f"{row['step']:,} of {total:,}" if total else f"{row['step']:,}",
            "-" if best is None else f"{best:.2%}",
            _age(row["age_seconds"]),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    console.print(table, markup=False)


def _age(seconds: int) -> str:
    """Such as `3 h ago`.

    >>> [_age(seconds) for seconds in (5, 90, 7300, 200_000)]
    ['5 s ago', '1 min ago', '2 h ago', '2 d ago']
    """
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
