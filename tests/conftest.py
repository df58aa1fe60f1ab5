"""Eight simulated devices, and folders that several tests share. The environment is set before anything imports jax."""

import gc
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from started import Started, xla_flags

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = xla_flags(8)

import hypothesis
import pytest

# How long an example takes is the machine's affair: on one that is busy, any may take long.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

# Tracing makes millions of objects that stay; looking through them for garbage takes a quarter of its time.
gc.set_threshold(100_000, 50, 1000)

TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def data_dir(shared_folder) -> Path:
    """Where data sets are prepared, once for all tests."""
    return shared_folder / "data"


@pytest.fixture(scope="session")
def tiny_plugin(shared_folder) -> Path:
    """A folder for PYTHONPATH in which the foreign plugin `tiny_net` is installed as pip would install it."""
    site = shared_folder / "site"
    source = shutil.copytree(TESTS / "third_party", shared_folder / "source")  # setuptools writes beside what it builds
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", site, source], check=True)
    return site


class CommandLine:
    """Runs `python -m flaxnets ...` in a process of its own, in an empty folder."""

    def __init__(self, folder: Path, shared_folder: Path, tiny_plugin: Path):
        self.folder = folder
        self.places = ["--data.dir", str(shared_folder / "data")]
        self.places += ["--compilation-cache", str(shared_folder / "compiled")]
        self._path = tiny_plugin

    def command(self, *arguments: object) -> list[str]:
        """What to execute; training finds shared folders."""
        places = self.places if arguments[:1] in (("train",), ("augment-preview",)) else []
        return [sys.executable, "-m", "flaxnets", *map(str, arguments), *places]

    def environment(self, devices: int = 1) -> dict[str, str]:
        """The variables of such a process."""
        return {**os.environ, "XLA_FLAGS": xla_flags(devices), "PYTHONPATH": str(self._path), "COLUMNS": "200"}

    def start(self, *arguments: object, devices: int = 1) -> Started:
        """Start with just these arguments."""
        return Started(self.folder, self._path, list(map(str, arguments)), XLA_FLAGS=xla_flags(devices))

    def __call__(self, *arguments: object, devices: int = 1, code: int = 0) -> Started:
        """Run to the end, and see that it ended with `code`."""
        return self.start(*self.command(*arguments)[3:], devices=devices).end(code)

    def refuses(self, *arguments: object, devices: int = 1) -> str:
        """The sentence with which a mistake is refused: one line, no traceback, exit code 2."""
        done = self(*arguments, devices=devices, code=2)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("Error: ")
        return lines[0].removeprefix("Error: ")


@pytest.fixture
def flaxnets(tmp_path, shared_folder, data_dir, tiny_plugin) -> CommandLine:
    return CommandLine(tmp_path, shared_folder, tiny_plugin)


class Environment:
    """A fresh virtual environment with flaxnets in it, built and installed by pip.

    There is no network in tests, so it borrows the dependencies from the environment that runs them.
    """

    def __init__(self, home: Path):
        self._home = home
        self.python = home / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        purelib = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
        borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        Path(purelib, "borrowed.pth").write_text(borrowed)
        self.install(TESTS.parent)

    def install(self, *packages: Path) -> None:
        """Install packages from copies of their source, because setuptools writes beside what it builds."""
        unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs")
        copies = [shutil.copytree(p, self._home / "source" / p.name, ignore=unwanted) for p in packages]
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-build-isolation", *copies], check=True)

    def run(self, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
        """Run `python ARGUMENTS` of this environment, on one device."""
        variables = {**os.environ, "XLA_FLAGS": xla_flags(1)}
        line = [self.python, *map(str, arguments)]
        return subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def fresh_environment(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))
