"""A disk that is full for a while: a limit on the size of the run's files, which the test sets and lifts."""

import resource
import signal

from started import saved_steps

from flaxnets.training.log import read_metrics

# A save every 5 steps, so that there is always a next one.
OPTIONS = [
    "--name",
    "run",
    "--steps",
    100_000,
    "--evaluate-every",
    "5 steps",
    "--data.holdout",
    0.01,
    "--log-every",
    "2 steps",
]


def limit_file_size(pid: int, size: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_the_run_goes_on_warns_keeps_what_it_has_and_saves_again(start, folder):
    run = start(*OPTIONS)
    run.wait_for("is saved")
    limit_file_size(run.pid, 100)
    run.wait_for(r"Step \d+ could not be saved: .*\. Training goes on, and the next save tries again\.")
    kept = [step for step in saved_steps(run.stdout) if (folder / "checkpoints" / str(step)).is_dir()]
    assert kept[-1] == saved_steps(run.stdout)[-1]
    limit_file_size(run.pid, resource.RLIM_INFINITY)
    failed = saved_steps(run.stdout)[-1]
    run.wait_for(lambda: saved_steps(run.stdout)[-1] > failed + 8)
    run.send(signal.SIGTERM)
    run.end(128 + signal.SIGTERM)
    assert "Traceback" not in run.stderr
    last = saved_steps(run.stdout)[-1]
    assert f"Stopped by SIGTERM after step {last}, which is saved." in run.stdout
    steps = [line["step"] for line in read_metrics(folder) if line["split"] == "train"]
    assert steps == sorted({*range(2, last + 1, 2), *range(5, last + 1, 5), last})  # no line is lost


def test_a_last_state_that_cannot_be_saved_is_an_error(start, folder):
    run = start(*OPTIONS)
    run.wait_for("is saved")
    limit_file_size(run.pid, 100)
    run.wait_for("could not be saved")
    run.send(signal.SIGINT)
    run.end(2)
    last = saved_steps(run.stdout)[-1]
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("Error: ")]
    assert "could not be saved in" in error
    assert error.endswith(f"the newest saved one is {last}. Mend that, and continue by --resume.")
    assert "is saved. Resume by" not in run.stdout
    assert "Traceback" not in run.stderr
    assert (folder / "checkpoints" / str(last)).is_dir()
