"""`flaxnets new-plugin`: writes a package that adds an architecture, ready to install, list, test and train."""

import argparse
import importlib.util
import keyword
import re
from pathlib import Path

from flaxnets import registry
from flaxnets.errors import ArchitectureError

TEMPLATE = Path(__file__).parent / "template"
PLACEHOLDER = "my_net"  # stands for the new name in the template's text and file names


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises ArchitectureError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets new-plugin", description=description)
    parser.add_argument("name", help="name of the architecture, such as my_net")
    parser.add_argument("folder", type=Path, help="new folder for the package")
    arguments = parser.parse_args(options)
    for file in write_plugin(arguments.name, arguments.folder):
        print(file)
    print(f'Install, test and train it: cd {arguments.folder} && pip install -e ".[test]" && pytest')
    return 0


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write the package `flaxnets_NAME` into a new folder and return its files.

    Raises:
      ArchitectureError: the name is no Python name in lower case or is taken, or the folder holds something.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name):  # a package's name may not end in an underscore
        raise ArchitectureError(
            f"{name!r} cannot name an architecture; use lower-case letters, digits and underscores between them."
        )
    code = (TEMPLATE / f"flaxnets_{PLACEHOLDER}" / "__init__.py").read_text(encoding="utf-8")
    used = {*compile(code, "template", "exec").co_names} - {PLACEHOLDER}  # the architecture is a variable beside them
    if keyword.iskeyword(name) or name in used:
        raise ArchitectureError(f"{name!r} is a word of the package's own code; choose another name.")
    if importlib.util.find_spec(f"flaxnets_{name}"):
        raise ArchitectureError(f"There is a package flaxnets_{name} already; choose another name.")
    taken = [entry.distribution for entry in registry.available(name)]
    if taken:
        raise ArchitectureError(f"The package {taken[0]} has an architecture {name!r} already; choose another name.")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ArchitectureError(f"{folder} is not empty; give a new folder.")
        written = []
        for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            target = folder / str(source.relative_to(TEMPLATE)).replace(PLACEHOLDER, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8").replace(PLACEHOLDER, name), encoding="utf-8")
            written.append(target)
    except OSError as error:
        raise ArchitectureError(f"Cannot write {folder}: {error.strerror}; give another folder.") from error
    return written
