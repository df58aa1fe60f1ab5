"""Eight simulated devices, and folders that several tests share. The environment is set before anything imports jax."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import pytest

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
        self._places = ["--data.dir", str(shared_folder / "data")]
        self._places += ["--compilation-cache", str(shared_folder / "compiled")]
        self._path = str(tiny_plugin)

    def command(self, *arguments: object) -> list[str]:
        """What to execute; training finds shared folders."""
        places = self._places if arguments[:1] == ("train",) else []
        return [sys.executable, "-m", "flaxnets", *map(str, arguments), *places]

    def environment(self, devices: int = 1) -> dict[str, str]:
        """The variables of such a process."""
        flags = f"--xla_force_host_platform_device_count={devices}"
        return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": self._path, "COLUMNS": "200"}

    def __call__(self, *arguments: object, devices: int = 1, code: int = 0) -> subprocess.CompletedProcess:
        """Run to the end, and see that it ended with `code`."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(devices),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

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
