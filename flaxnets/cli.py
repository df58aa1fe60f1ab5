"""The command line: parses, dispatches, and turns mistakes of the user into one sentence and exit code 2."""

import argparse
import json
import os
import sys
from pathlib import Path

from flaxnets.config import Run, load_experiment, option_names
from flaxnets.errors import ConfigError, FlaxnetsError, did_you_mean


def main(arguments: list[str] | None = None, command: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
      arguments: command and options; those of the process if None.
      command: what the user typed in place of `flaxnets COMMAND`, for messages that repeat it.
    """
    name, *options = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if name in ("-h", "--help"):
            print(_usage())
            return 0
        if name not in COMMANDS:
            raise ConfigError(
                f"There is no command {name!r}.{did_you_mean(name, COMMANDS)} `flaxnets --help` lists all."
            )
        code = COMMANDS[name](options, command or ["flaxnets", name])
        sys.stdout.flush()
        return code
    except FlaxnetsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Stopped before the first step; nothing was trained.", file=sys.stderr)
        return 130


def parse_run(options: list[str]) -> Run:
    """The run that command-line options describe. Raises ConfigError for one that does not exist or does not fit."""
    import tyro

    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--experiment", type=Path)
    try:
        experiment = chooser.parse_known_args(options)[0].experiment
    except argparse.ArgumentError:  # no file after it: tyro says so below
        experiment = None
    start = load_experiment(experiment) if experiment else Run()
    run, unknown = tyro.cli(Run, args=options, default=start, prog="flaxnets train", return_unknown_args=True)
    if unknown:
        known = ["--" + option.replace("_", "-") for option in option_names()]
        raise ConfigError(
            f"There is no option {unknown[0]!r}.{did_you_mean(unknown[0], known)} `flaxnets train --help` lists all."
        )
    return run


def _train(options: list[str], command: list[str]) -> int:
    """Train an architecture on a data set."""
    run = parse_run(options)
    from flaxnets.run import train

    return train(run, [*command, *options])


def _list(options: list[str], command: list[str]) -> int:
    """List the architectures that are installed."""
    from flaxnets import registry

    parser = argparse.ArgumentParser(prog="flaxnets list", description=_list.__doc__)
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
        _print_architectures(rows)
    return 0


def _info(options: list[str], command: list[str]) -> int:
    """Show an architecture's paper, input, published accuracy and options."""
    from flaxnets.tools import info

    return info.main(options, str(_info.__doc__))


def _summary(options: list[str], command: list[str]) -> int:
    """Show an architecture's layers: shapes, parameters, multiply-adds, receptive fields, memory."""
    from flaxnets.tools import summary

    return summary.main(options, str(_summary.__doc__))


def _convert(options: list[str], command: list[str]) -> int:
    """Rewrite a checkpoint in the names of torchvision, timm or flaxnets, as safetensors."""
    from flaxnets.tools import convert

    return convert.main(options, str(_convert.__doc__))


def _print_architectures(rows: list[dict]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("package")
    table.add_column("parameters", justify="right")
    table.add_column("paper")
    for row in rows:
        parameters = f"{row['num_params']:,}" if "num_params" in row else "-"
        table.add_row(row["name"], row["package"], parameters, row.get("paper", "-"))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    console.print(table)


def _usage() -> str:
    lines = ["usage: flaxnets COMMAND [OPTIONS]", "", "Image classifiers for JAX.", "", "commands:"]
    lines += [f"  {name:<8}{function.__doc__}" for name, function in COMMANDS.items()]
    return "\n".join([*lines, "", "`flaxnets COMMAND --help` explains one command."])


COMMANDS = {"train": _train, "list": _list, "info": _info, "summary": _summary, "convert": _convert}
