"""`flaxnets export`: a network in a form that others can use; each form is a module of its own."""

import argparse
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

from flaxnets.errors import ConfigError
from flaxnets.tools import exported
from flaxnets.tools.outputs import check_new, write_folder
from flaxnets.tools.trained import add_network, open_network, open_run

# Each module has `add_options(parser)` and `files(network, arguments) -> {name: bytes}`.
FORMATS = {"safetensors": "export_safetensors", **exported.FORMATS}


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    modules = {name: importlib.import_module(f"flaxnets.tools.{module}") for name, module in FORMATS.items()}
    parser = argparse.ArgumentParser(prog="flaxnets export", description=description)
    parser.add_argument(
        "network",
        metavar="RUN",
        help="run folder, whose best checkpoint is taken; or file with --arch, or architecture",
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="safetensors", help="default: safetensors")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="new folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    deployed = parser.add_argument_group(", ".join(exported.FORMATS), exported.__doc__)
    add_network(deployed)
    exported.add_options(deployed)
    groups = {deployed: tuple(exported.FORMATS)}
    for name, module in modules.items():
        groups[group := parser.add_argument_group(name, module.__doc__)] = (name,)
        module.add_options(group)
    arguments = parser.parse_args(options)
    _refuse_options_of_others(arguments, groups)
    check_new(arguments.out)
    files = modules[arguments.format].files
    if arguments.format not in exported.FORMATS:
        written = files(open_run(arguments.network), arguments)
        write_folder(arguments.out, written)
        _report(arguments, written)
        return 0

    from flaxnets.tools import comparison

    with comparison.on_cpu():
        network = open_network(arguments.network, arguments, fold=False, untrained=True)
        written = files(network, arguments)
        pixels, kind = comparison.real_pictures(network)
        expected = comparison.answers(network, pixels)

    differences = []

    def check(folder: Path) -> None:
        file = exported.open_exported(folder / f"{exported.STEM}.{arguments.format}")
        with comparison.on_cpu():
            differences.append(comparison.compare(file, pixels, expected))

    write_folder(arguments.out, written, check)
    (difference,) = differences
    if not arguments.json:
        print(f"Loaded again and compared with the model on {kind}: {difference}.")
    _report(arguments, written, {"pictures": kind, **dataclasses.asdict(difference)})
    return 0


def _report(arguments: argparse.Namespace, written: dict[str, bytes], difference: dict[str, Any] | None = None) -> None:
    """Say which files were written, and in JSON also how much they differ from the model."""
    sizes = {name: len(content) for name, content in written.items()}
    if arguments.json:
        found = {"folder": str(arguments.out), "bytes": sizes}
        print(json.dumps(found | ({"difference": difference} if difference else {}), indent=2))
        return
    for name, size in sizes.items():
        print(f"{arguments.out / name}: {size:,} bytes")


def _refuse_options_of_others(
    arguments: argparse.Namespace, groups: dict[argparse._ArgumentGroup, tuple[str, ...]]
) -> None:
    for group, formats in groups.items():
        for action in group._group_actions:
            if arguments.format not in formats and getattr(arguments, action.dest) != action.default:
                flag, needed = action.option_strings[0], " or ".join(formats)
                raise ConfigError(f"{flag} is not for {arguments.format}; leave it out, or give --format {needed}.")
