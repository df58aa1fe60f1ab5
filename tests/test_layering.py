"""Imports go one way: each layer imports only from layers before it; plugins see only the contract and the layers."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    "errors", "plugin", "layers", "registry", "weights fold", "models", "hooks", "trace", "summaries explain",
    "part recipe config", "data", "training", "planning", "tools testing", "run cli __main__",
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
PLUGINS = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
FILES = sorted([*(ROOT / "flaxnets").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
FILES = [file for file in FILES if "template" not in file.parts]  # a package of its own


def imported_modules(file: Path) -> set[str]:
    """Every module of ours that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in {"flaxnets", *PLUGINS}}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    package, *inner = file.relative_to(ROOT / ("plugins" if "plugins" in file.parts else ".")).with_suffix("").parts
    for module in imported_modules(file):
        target, *rest = module.split(".")
        if package in PLUGINS:
            allowed = target == package or (package == "flaxnets_cbam" and target == "flaxnets_resnet")
            assert allowed or (target == "flaxnets" and rest[0] in ("plugin", "layers", "errors")), module
        else:
            assert target == "flaxnets", f"{module}: the core knows no plugin"
            if inner[0] == "registry":
                assert rest[0] in ("plugin", "errors"), module
            if inner[0] in RANK and rest[0] in RANK:
                assert RANK[rest[0]] <= RANK[inner[0]], module


def test_every_file_says_what_it_does_in_its_first_line():
    for file in FILES:
        docstring = ast.get_docstring(ast.parse(file.read_text()))
        assert docstring, file
        assert file.read_text().startswith('"""'), file


def test_every_module_of_the_core_has_its_place():
    known = {*RANK, "__init__"}
    assert {path.stem for path in (ROOT / "flaxnets").iterdir() if path.name != "__pycache__"} <= known
