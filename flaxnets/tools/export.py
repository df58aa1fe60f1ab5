"""`flaxnets export`: a trained network in a form that others can use; each form is a module of its own."""

import argparse
import importlib
import os
import tempfile
from pathlib import Path

from flaxnets.errors import ConfigError
from flaxnets.tools.outputs import check_new
from flaxnets.tools.trained import open_run

# Each module has `add_options(parser)` and `files(network, arguments) -> {name: bytes}`.
FORMATS = {"safetensors": "export_safetensors"}


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    modules = {name: importlib.import_module(f"flaxnets.tools.{module}") for name, module in FORMATS.items()}
    parser = argparse.ArgumentParser(prog="flaxnets export", description=description)
    parser.add_argument("run", metavar="RUN", help="run folder; its best checkpoint is exported")
    parser.add_argument("--format", choices=tuple(FORMATS), default="safetensors", help="default: safetensors")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="new folder")
    for name, module in modules.items():
        module.add_options(parser.add_argument_group(name, module.__doc__))
    arguments = parser.parse_args(options)
    check_new(arguments.out)
    written = modules[arguments.format].files(open_run(arguments.run), arguments)
    _write(arguments.out, written)
    for name, content in written.items():
        print(f"{arguments.out / name}: {len(content):,} bytes")
    return 0


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write a new folder with all files in it, or nothing. Raises ConfigError where that cannot be."""
    try:
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}-") as place:
            whole = Path(place) / "whole"
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            os.rename(whole, folder)  # refuses to replace a folder that is not empty
    except OSError as error:
        raise ConfigError(f"Cannot write {folder}: {error.strerror}; choose another place by --out FOLDER.") from error
