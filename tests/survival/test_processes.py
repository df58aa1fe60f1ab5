"""One run in several processes: the same losses as in one, checkpoints for any number of them, and lost processes."""

import json
import shlex
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from started import saved_steps, xla_flags

from flaxnets.errors import ConfigError
from flaxnets.planning.costs import Collective, collectives_in
from flaxnets.tools import launch
from flaxnets.training.log import read_metrics
from flaxnets.weights.trained import read_run

OPTIONS = [
    "--name",
    "run",
    "--batch-norm",
    "synchronised",
    "--steps",
    40,
    "--evaluate-every",
    "10 steps",
    "--data.holdout",
    0.01,
]
OPTIONS += ["--log-every", "1 step"]  # the processes agree on stopping at a logged step, or within ten
ENDLESS = [*OPTIONS, "--steps", 100_000, "--log-every", "5 steps"]


def devices(count: int) -> dict[str, str]:
    return {"XLA_FLAGS": xla_flags(count)}


def start_all(start, count: int, *options: object, **environment: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = ["--distributed.coordinator", address, "--distributed.num-processes", count]
    return [start(*options, *shared, "--distributed.process-id", number, **environment) for number in range(count)]


def losses(folder) -> dict:
    return {(line["step"], line["split"]): line["loss"] for line in read_metrics(folder)}


def test_processes_compute_what_one_does_and_read_each_others_checkpoints(start, folder):
    """Four devices each time, in 1, 2 or 4 processes."""
    start(*OPTIONS, "--name", "one", **devices(4)).end()
    two = start_all(start, 2, *OPTIONS, **devices(2))
    two[0].wait_for("step 10 is saved")
    two[1].send(signal.SIGTERM)  # told one of them, both stop
    for process in two:
        process.end(128 + signal.SIGTERM)
    stopped = saved_steps(two[0].stdout)[-1]
    assert 10 < stopped < 40
    assert "Stopped by SIGTERM after step" in two[0].stdout
    assert "step" not in two[1].stdout  # one of them speaks
    for name in ("resumed_by_1", "resumed_by_4"):
        shutil.copytree(folder, folder.with_name(name))
    start(*OPTIONS, "--name", "resumed_by_1", "--resume", **devices(4)).end()
    for process in start_all(start, 4, *OPTIONS, "--name", "resumed_by_4", "--resume", **devices(1)):
        process.end()
    expected = losses(folder.with_name("one"))
    for name in ("resumed_by_1", "resumed_by_4"):
        found = losses(folder.with_name(name))
        assert found.keys() - {(stopped, "train")} == expected.keys() - {(stopped, "train")}
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=2e-4, err_msg=f"{name} {key}")
    assert len({round(loss, 3) for loss in expected.values()}) > 10


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_says_why(start, folder, killed):
    processes = start_all(start, 2, *ENDLESS)
    processes[0].wait_for(r"step \d+ is saved")
    saved = saved_steps(processes[0].stdout)[-1]
    processes[killed].kill()
    began = time.monotonic()
    other = processes[1 - killed]
    other.end(1, -signal.SIGABRT)
    assert time.monotonic() - began < 60
    assert "lost touch with the others" in other.stderr or "another task died" in other.stderr, other.stderr
    if killed == 1:
        processes = start_all(start, 2, *ENDLESS, "--resume")
        processes[0].wait_for(rf"first step \(({'|'.join(str(step + 1) for step in range(saved, saved + 500))})\)")
        for process in processes:
            process.send(signal.SIGINT)
        for process in processes:
            process.end(128 + signal.SIGINT)


def test_launch_starts_processes_that_prepare_one_data_set_and_stop_together(flaxnets, tmp_path):
    """Four of them; their step has a single all-reduce, of no more than there must be."""
    command = flaxnets.command("launch", "--processes", 4, "--", "train", "--arch", "tiny_net", "--steps", 100_000)
    command += ["--data.dir", str(tmp_path / "data"), "--compilation-cache", str(tmp_path / "compiled")]
    command += ["--evaluate-every", "1000 epochs", "--log-every", "1000 epochs"]  # they agree on stopping nevertheless
    command += ["--name", "run"]
    variables = flaxnets.environment()
    variables["XLA_FLAGS"] += f" --xla_dump_to={tmp_path / 'dump'} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=step"
    with subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("first step"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGINT, rest
    assert "Stopped by SIGINT after step" in rest
    assert rest.strip().endswith(f"Resume by: flaxnets {shlex.join(command[command.index('launch') :])} --resume")
    assert json.loads((tmp_path / "runs" / "run" / "run.json").read_text())["settings"]["data.name"]
    averaged = sum(array.size for array in read_run(tmp_path / "runs" / "run").tensors().values())
    programs = [collectives_in(file.read_text()) for file in (tmp_path / "dump").glob("*after_optimizations.txt")]
    expected = {"all-reduce": Collective(count=1, bytes=4 * (averaged + 3))}  # and three sums of metrics
    assert programs == [expected] * len(programs) != []  # they write one file, or one each


def test_a_mistake_of_the_first_process_ends_all(start, tmp_path):
    (tmp_path / "runs").write_text("a file")
    first, second = start_all(start, 2, *OPTIONS)
    first.end(2)
    second.end(2)
    for process in (first, second):
        assert process.stderr.count("Error: Cannot write the run folder") == 1
        assert "stack trace" not in process.stderr


def test_a_part_of_the_address_is_refused(start):
    run = start("--distributed.num-processes", 2).end(2)
    assert run.stderr.strip() == (
        "Error: One of several processes needs all of --distributed.coordinator HOST:PORT, "
        "--distributed.num-processes and --distributed.process-id; give the others, or none to have them found."
    )
    run = start("--distributed.coordinator", "a:1", "--distributed.num-processes", 2, "--distributed.process-id", 2)
    assert "There is no process 2 of 2; --distributed.process-id counts from 0." in run.end(2).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "2", "--", "list"], "runs training only; use: flaxnets launch --processes 2 -- train"),
        (["--processes", "0", "--", "train"], "There cannot be 0 processes; give --processes 1 or more."),
    ],
)
def test_launch_refuses_what_it_cannot_do(options, message):
    with pytest.raises(ConfigError, match=message):
        launch.main(options, "")
