"""The other commands, and what `flaxnets` says of itself."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from flaxnets.cli import TOOLS


def test_usage_names_every_command(flaxnets):
    for arguments in ([], ["--help"]):
        lines = flaxnets(*arguments).stdout.splitlines()
        assert {"train", *TOOLS} <= {line.split()[0] for line in lines if line.startswith("  ")}


def test_an_unknown_command_gets_the_nearest(flaxnets):
    assert flaxnets.refuses("trian") == "There is no command 'trian'. Did you mean train? `flaxnets --help` lists all."


def test_help_of_training_names_the_compilation_cache(flaxnets):
    text = " ".join(flaxnets("train", "--help").stdout.split())
    assert "--compilation-cache PATH" in text
    assert "~/.cache/flaxnets/compilation" in text


def test_list_shows_name_package_parameters_and_paper(flaxnets):
    text = flaxnets("list", "resnet*").stdout
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["resnet50"]]
    assert line.split() == ["resnet50", "flaxnets", "0.1.0", "25,557,032", "arXiv:1512.03385"]
    assert "tiny_net" not in text


def test_list_as_json(flaxnets):
    rows = {row["name"]: row for row in json.loads(flaxnets("list", "--json").stdout)}
    assert rows["resnet18"] == {
        "name": "resnet18", "package": "flaxnets 0.1.0", "num_params": 11_689_512, "paper": "arXiv:1512.03385"
    }  # fmt: skip
    assert rows["tiny_net"]["package"] == "flaxnets-tiny 0.3.0"


def test_a_value_of_another_kind_is_refused_with_what_is_possible(flaxnets):
    done = flaxnets("train", "--dtype", "float8", code=2)
    assert "Traceback" not in done.stderr
    assert "invalid choice 'float8' for argument '--dtype'. Expected one of ('float32', 'bfloat16')." in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("list >/dev/full", 2, "Error: No space left on device for what the command writes; make room, or write else"),
        ("list --json >/dev/full", 2, "Error: No space left on device for what the command writes; make room, or wri"),
        ("list >&-", 0, ""),
        ("nosuch 2>&-", 2, ""),
        ("list | true", 0, ""),
        ("--help | true", 0, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_accident(flaxnets, line, code, said):
    line = f"set -o pipefail; {sys.executable} -m flaxnets {line}"
    done = subprocess.run(["bash", "-c", line], env=flaxnets.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == bool(said)


def test_the_console_script_is_the_module():
    (script,) = entry_points(group="console_scripts", name="flaxnets")
    assert script.value == "flaxnets.__main__:main"
