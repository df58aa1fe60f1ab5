"""Finds architectures by entry points; listing them imports neither their plugins nor jax."""

import ast
import dataclasses
import fnmatch
import functools
import importlib.machinery
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from flaxnets.errors import ArchitectureError, did_you_mean

if TYPE_CHECKING:
    from flaxnets.plugin import Architecture

GROUP = "flaxnets.architectures"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered name, before its plugin is imported.

    Attributes:
      name: the architecture's name, such as `resnet50`.
      distribution, version: the installed package that provides it.
      unique: whether no other package provides the same name.
    """

    name: str
    distribution: str
    version: str
    unique: bool
    _entry_point: metadata.EntryPoint = dataclasses.field(repr=False)

    @property
    def qualified(self) -> str:
        """`distribution:name`, which is never ambiguous."""
        return f"{self.distribution}:{self.name}"

    @property
    def label(self) -> str:
        """The shortest name that finds this architecture: `name`, or `distribution:name` where packages share it."""
        return self.name if self.unique else self.qualified

    def published(self) -> dict[str, int | str]:
        """`num_params` and `paper` as far as the plugin's source states them; nothing is imported or run."""
        # Read here, because Python's own reading fails where a package wrote something else than MODULE:NAME.
        module, _, attribute = self._entry_point.value.replace(" ", "").partition("[")[0].partition(":")
        try:
            source = _source_file(module)
            tree = ast.parse(source.read_bytes()) if source else ast.Module([], [])
        except (OSError, SyntaxError, ValueError):
            return {}
        return _keywords(tree, attribute)

    def load(self) -> "Architecture":
        """Import the plugin. Raises ArchitectureError where that fails or yields something else."""
        from flaxnets.plugin import Architecture

        package = f"{self.distribution} {self.version}"
        try:
            loaded = self._entry_point.load()
        except (Exception, SystemExit) as error:  # a plugin may be a script that ends itself
            raise ArchitectureError(
                f"The plugin of {self.name!r} (package {package}) cannot be imported: {type(error).__name__}: {error}. "
                f"Other architectures still work; mend {self._entry_point.value}, or remove it with `pip uninstall "
                f"{self.distribution}`."
            ) from error
        if not isinstance(loaded, Architecture):
            raise ArchitectureError(
                f"The entry point of {self.name!r} (package {package}) points at a {type(loaded).__name__}; let "
                f"{self._entry_point.value} be a flaxnets.plugin.Architecture."
            )
        return loaded


def available(pattern: str = "*") -> list[Entry]:
    """The registered architectures whose name, or `distribution:name`, matches a shell pattern, sorted by name."""
    points: dict[tuple[str, str], tuple[str, metadata.EntryPoint]] = {}
    stated = functools.cache(lambda distribution: distribution.metadata)  # which parses a file at every question
    for point in metadata.entry_points(group=GROUP):
        if point.dist and (package := stated(point.dist)["Name"]):
            # An interrupted pip leaves a package's metadata twice, the old ones as `~NAME`: the first found count.
            points.setdefault((package, point.name), (stated(point.dist)["Version"], point))
    providers = Counter(name for _, name in points)
    entries = [
        Entry(name, package, version, providers[name] == 1, point)
        for (package, name), (version, point) in points.items()
    ]
    matching = [e for e in entries if fnmatch.fnmatch(e.name, pattern) or fnmatch.fnmatch(e.qualified, pattern)]
    return sorted(matching, key=lambda entry: (_natural(entry.name), entry.distribution))


def find(name: str) -> Entry:
    """The entry called `name` or `distribution:name`. Raises ArchitectureError if there is none, or more than one."""
    entries = available()
    found = [entry for entry in entries if name in (entry.name, entry.qualified)]
    if len(found) > 1:
        choices = " or ".join(f"--arch {entry.qualified}" for entry in found)
        raise ArchitectureError(f"{len(found)} installed packages provide {name!r}. Pick one: {choices}.")
    if not found:
        known = {label for entry in entries for label in (entry.name, entry.label)}
        raise ArchitectureError(
            f"No architecture named {name!r}.{did_you_mean(name, known)} `flaxnets list` shows all; a name just "
            "added to pyproject.toml appears after `pip install -e .`."
        )
    return found[0]


def get(name: str) -> "Architecture":
    """The architecture called `name` or `distribution:name`; imports its plugin. Raises ArchitectureError."""
    return find(name).load()


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise ArchitectureError where the architecture called `name` takes no such option."""
    takes = get(name).options
    unknown = next((option for option in options if option not in takes), None)
    if unknown is not None:
        known = ", ".join(f"{option}={default!r}" for option, default in takes.items())
        raise ArchitectureError(
            f"{name} takes no option {unknown!r}.{did_you_mean(unknown, takes)} It takes {known or 'none'}."
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts resnet50 before resnet101."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _source_file(module: str) -> Path | None:
    """The file that `import module` would run, without importing it or its packages."""
    package, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for part in rest.split(".") if rest else ():
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(part, spec.submodule_search_locations)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _keywords(tree: ast.Module, attribute: str) -> dict[str, int | str]:
    """`num_params` and `paper` in the statement `attribute = something(..., num_params=..., paper=...)`."""
    constants: dict[str, object] = {}

    def value_of(node: ast.expr) -> object:
        return node.value if isinstance(node, ast.Constant) else constants.get(getattr(node, "id", ""))

    for statement in tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        name = getattr(target, "id", "")
        if name == attribute and isinstance(statement.value, ast.Call):
            stated = {keyword.arg: value_of(keyword.value) for keyword in statement.value.keywords}
            wanted = (("num_params", int), ("paper", str))
            return {key: value for key, kind in wanted if isinstance(value := stated.get(key), kind)}
        constants[name] = value_of(statement.value)
    return {}
