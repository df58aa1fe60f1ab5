"""What the README and docs/ say is true: commands and examples run; options, links, tests and figures exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch_files
import yaml
from golden import abstract, checkpoint
from PIL import Image
from sklearn.datasets import load_digits

from flaxnets import registry
from flaxnets.cli import TOOLS
from flaxnets.config import load_experiment, option_names
from flaxnets.tools.bench_data import write_photographs
from flaxnets.weights.layouts import slots

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXCUSE = re.compile(r"^# Not run by the tests.*: .{10,}", re.MULTILINE)
INSTALL = "pip install -e . && "
BY_CI = 'pip install -e ".[test]" && pytest'  # by .ci/run, in a fresh environment
SHORT = ["--steps", "2", "--schedule.warmup", "0 steps", "--data.batch-size", "8", "--data.image-size", "32"]


class Block(NamedTuple):
    """Code in a page."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [] if EXCUSE.search(self.text) else [line for line in lines if line and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_two_commands_stand_first_and_the_second_is_run_by_ci():
    commands = [command for block in blocks(README) for command in block.commands]
    assert commands[:2] == [f"{INSTALL}python -m flaxnets.run --arch resnet50", BY_CI]
    assert "grep -m 1 -F '&& pytest' README.md" in (ROOT / ".ci" / "run").read_text()


IN_DOCS = {command for page in PAGES[1:] for block in blocks(page) for command in block.commands}
ALONE = [command for block in blocks(README) for command in block.commands if command not in {BY_CI, *IN_DOCS}]


@pytest.mark.parametrize("command", ALONE)
def test_a_command_of_the_readme_works(flaxnets, command):
    """Each by itself; those that a page has as well run there."""
    provide(README, flaxnets)
    run(command, flaxnets)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in ("sh", "python") for b in blocks(page))], ids=ids
)
def test_commands_and_examples_work(flaxnets, page, monkeypatch):
    """From top to bottom, in one folder: what a page makes, it uses."""
    monkeypatch.chdir(flaxnets.folder)
    provide(page, flaxnets)
    names: dict = {"__name__": page.stem}
    done: set[str] = set()
    for block in blocks(page):
        if page != README:
            for command in block.commands:
                if command not in done:
                    run(command, flaxnets)
                done.add(command)
        if block.language == "python" and not EXCUSE.search(block.text):
            exec(compile(block.text, page, "exec"), names)


def run(command: str, flaxnets) -> None:
    """With the installation left out, training cut to two steps of a few small images, and timing to one round."""
    program, *arguments = shlex.split(command.removeprefix(INSTALL))
    if (program, *arguments[:2]) == ("python", "-m", "flaxnets.run"):
        program, arguments = "flaxnets", ["train", *arguments[2:]]
    arguments = [str(ROOT / word) if word.startswith("experiments/") else word for word in arguments]
    arguments = [name for word in arguments for name in (expanded(word, flaxnets.folder) if "*." in word else [word])]
    if program == "python":
        subprocess.run([sys.executable, *arguments], cwd=flaxnets.folder, check=True, stdout=subprocess.DEVNULL)
        return
    assert program == "flaxnets", (
        f"{command!r} is neither run by this test nor excused by `# Not run by the tests: ...`"
    )
    trains = "train" in arguments and "--help" not in arguments
    done = flaxnets(*arguments, *(SHORT if trains else ["--rounds", "1"] if arguments[0] == "bench" else []))
    assert done.stdout
    if trains and "--dry-run" not in arguments:
        assert "best test accuracy" in done.stdout


def expanded(pattern: str, folder: Path) -> list[str]:
    """The files that a shell would put in a pattern's place."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))


def provide(page: Path, flaxnets) -> None:
    """What a page takes as given: photographs, published weights, a trained run."""
    text, folder = page.read_text(), flaxnets.folder
    if "folder:photographs" in text and "experiments/photographs.py" not in text:
        write_photographs(folder / "photographs", 10)
    if "mobilenet_v2.pth" in text:
        layout = registry.get("mobilenet_v2").layouts["torchvision"]
        tensors = checkpoint({slot.name: slot.shape for slot in slots(abstract("mobilenet_v2"), layout)})
        tree = {name: torch_files.tensor(array) for name, array in tensors.items()}
        (folder / "mobilenet_v2.pth").write_bytes(torch_files.zip_file(tree))
    if "runs/digits" in text:
        network = ["--arch", "resnet18", "--options", "width", "0.125", "stem", "small"]
        for name in re.findall(r"runs/(digits\d?)\b", text):
            if not (folder / "runs" / name).exists():
                flaxnets("train", *network, *SHORT, "--name", name)
        digits = load_digits()
        for number, (pixels, label) in enumerate(zip(digits.images[:40], digits.target, strict=False)):
            files = ["picture.png"] if number == 0 else [f"pictures/{number}.png"] if number < 3 else []
            for file in [*files, f"pictures/{label}/{number}.png"]:  # for patterns, and as a data set
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((pixels * 15).astype("uint8")).save(folder / file)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_can_be_read(page, tmp_path):
    for number, block in enumerate(blocks(page)):
        if block.language == "toml" and "[project" in block.text:
            assert tomllib.loads(block.text)["project"]["entry-points"]["flaxnets.architectures"]
        elif block.language == "toml":
            file = tmp_path / f"{number}.toml"
            file.write_text(block.text)
            load_experiment(file)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        else:
            assert block.language in ("sh", "python", "text", ""), "nothing would check this block"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_options_exist(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    said = [code for code in re.findall(r"`([^`]+)`", prose) if code.startswith(("--", "flaxnets "))]
    said += [command for block in blocks(page) for command in block.commands if "flaxnets" in command]
    assert {name for code in said for name in re.findall(r"^flaxnets ([a-z][a-z-]+)", code)} <= {"train", *TOOLS}
    known = {"--" + name.replace("_", "-") for name in option_names()} | {"--help"}
    for tool in (ROOT / "flaxnets" / "tools").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', tool.read_text()))
    assert {name for code in said for name in re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", code)} <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=ids)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_promises_are_kept_by_tests_that_exist():
    named = re.findall(r"`(tests/[^`]*)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 30
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_results_are_those_of_the_experiment_files():
    rows = [line.split("|") for line in (ROOT / "docs" / "recipes.md").read_text().splitlines() if "| [`" in line]
    rows = {re.findall(r"experiments/(\w+)\.toml", row[1])[0]: row for row in rows}
    assert rows.keys() == {file.stem for file in (ROOT / "experiments").glob("*.toml")}
    for name, (_, _, _, expected, measured, time, _) in rows.items():
        lines = (ROOT / "experiments" / f"{name}.toml").read_text().splitlines()
        head = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        for figure in re.findall(r"\d+\.?\d*(?= s| minutes)|\d+\.\d+", expected + measured + time):
            assert figure in head, f"{name}: {figure}"
        assert ("Measured: pending" in head) == (measured.strip() == "pending"), name
        assert bool(re.search("run at full scale", head)) == (measured.strip() == "never run at full scale"), name
