"""`flaxnets launch`: several processes of one training run on this machine, each with a device of its own."""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys

from flaxnets.errors import ConfigError

LAUNCHED = "FLAXNETS_LAUNCHED"
"""Environment variable: the command that started this process among others, for messages that repeat it."""


def main(options: list[str], description: str) -> int:
    """Carry out the command: 0, or the exit code of a process that failed. Raises ConfigError."""
    parser = argparse.ArgumentParser(prog="flaxnets launch", description=description)
    parser.add_argument("--processes", type=int, required=True, help="how many; each gets one GPU, or part of the CPU")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- train ...", help="what each of them runs")
    arguments = parser.parse_args(options)
    command = arguments.command[arguments.command[:1] == ["--"] :]
    if arguments.processes < 1:
        raise ConfigError(f"There cannot be {arguments.processes} processes; give --processes 1 or more.")
    if command[:1] != ["train"]:
        raise ConfigError("flaxnets launch runs training only; use: flaxnets launch --processes 2 -- train ...")
    address = f"127.0.0.1:{_free_port()}"
    distributed = ["--distributed.coordinator", address, "--distributed.num-processes", str(arguments.processes)]
    variables = {**os.environ, LAUNCHED: shlex.join(["flaxnets", "launch", *options])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "flaxnets", *command, *distributed, "--distributed.process-id", str(number)],
            env={**variables, "JAX_CUDA_VISIBLE_DEVICES": str(number), "JAX_ROCM_VISIBLE_DEVICES": str(number)},
            start_new_session=True,  # a Ctrl-C in the terminal reaches them through this process, once
        )
        for number in range(arguments.processes)
    ]

    def forward(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    codes = [process.wait() for process in processes]
    failed, killed = max(codes), -min(codes)  # where one failed, others may have been killed for it
    return failed if failed > 0 else 128 + killed if killed else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
