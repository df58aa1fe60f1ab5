"""Every command that the README shows is run, here or by `.ci/run`."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from flaxnets.tools.bench_data import write_photographs

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
INSTALL = "pip install -e . && "


def test_the_two_commands_stand_first():
    assert COMMANDS[:2] == [
        "pip install -e . && python -m flaxnets.run --arch resnet50",
        'pip install -e ".[test]" && pytest',
    ]


@pytest.mark.parametrize("command", [command for command in COMMANDS if "pytest" not in command])
def test_the_command_works(flaxnets, command):
    """With the installation left out, and training cut to two steps."""
    if "photographs" in command:
        write_photographs(flaxnets.folder / "photographs", 10)
    program, *arguments = shlex.split(command.removeprefix(INSTALL))
    if program == "python":
        assert arguments[:2] == ["-m", "flaxnets.run"]
        arguments[:2] = ["train"]
    else:
        assert program == "flaxnets"
    arguments = [str(ROOT / word) if word.startswith("experiments/") else word for word in arguments]
    if arguments[0] == "train" and "--help" not in arguments:
        done = flaxnets(*arguments, "--steps", 2, "--schedule.warmup", "0 steps")
        assert "best test accuracy" in done.stdout
    else:
        assert flaxnets(*arguments).stdout


def test_the_python_example_works():
    (example,) = [text for kind, text in BLOCKS if kind == "python"]
    names: dict = {}
    exec(example, names)
    assert type(names["model"]).__name__ == "ImageClassifier"


def test_the_console_script_is_the_module():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="flaxnets")
    assert script.value == "flaxnets.cli:main"
    assert sys.modules["flaxnets"]
