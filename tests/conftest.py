"""Eight simulated devices, and folders that several tests share. The environment is set before anything imports jax."""

import os
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
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", site, TESTS / "third_party"], check=True)
    return site


@pytest.fixture
def flaxnets(tmp_path, shared_folder, data_dir, tiny_plugin):
    """Run `python -m flaxnets ...` in a process of its own, in an empty folder, on one device."""

    def run(*arguments: object, devices: int = 1, code: int | None = 0, **environment: str):
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env={**process_environment(devices), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def command(*arguments: object) -> list[str]:
        line = [sys.executable, "-m", "flaxnets", *map(str, arguments)]
        if arguments[0] == "train":
            line += ["--data.dir", str(data_dir), "--compilation-cache", str(shared_folder / "compiled")]
        return line

    def process_environment(devices: int) -> dict[str, str]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(tiny_plugin), "PYTHONWARNINGS": "default"}

    run.command = command
    run.environment = process_environment
    run.folder = tmp_path
    return run
