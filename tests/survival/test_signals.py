"""Ctrl-C and SIGTERM at every moment of a run: gone at once or after the step, and nothing lost."""

import re
import signal
import subprocess
import sys
import time

import pytest
from started import saved_steps

from flaxnets.training.log import read_metrics

OPTIONS = [
    "--name",
    "run",
    "--steps",
    12,
    "--evaluate-every",
    "0.3 epochs",
    "--data.holdout",
    0.95,
    "--data.batch-size",
    4,
]
DUE = 8  # the first evaluation: 100 images to train on, in batches of 4, and 475 batches to test on


def accuracies(folder):
    return [(line["step"], line["accuracy"]) for line in read_metrics(folder) if line["split"] == "test"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_during_compilation_it_leaves_at_once_and_without_a_trace(start, tmp_path, folder, number):
    run = start("--name", "run", "--arch", "resnet18", "--compilation-cache", tmp_path / "cold")
    run.wait_for("1 x cpu")  # now it compiles, for many seconds
    run.wait_for(lambda: (folder / "run.json").exists())
    run.send(number)
    began = time.monotonic()
    run.end(128 + number)
    assert time.monotonic() - began < 5
    assert run.stderr.strip() == "Stopped before the first step; nothing was trained."
    assert not folder.exists()


HALF_MADE = """
import os, signal, time
from flaxnets.training.signals import StopRequest
with StopRequest() as stop:
    made = []
    stop.on_early_exit = lambda: print(*made, flush=True)
    with stop.undisturbed:
        made += ["one"]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        made += ["other"]
    time.sleep(60)
"""


def test_what_is_half_made_is_made_whole_before_it_is_undone():
    done = subprocess.run([sys.executable, "-c", HALF_MADE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "one other\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_during_evaluation_the_step_is_saved_and_evaluated_on_resume(start, folder, number):
    run = start(*OPTIONS)
    run.wait_for(lambda: folder.exists() and any(line["step"] == DUE for line in read_metrics(folder)))
    run.send(number)
    run.end(128 + number)
    assert accuracies(folder) == []
    assert f"Stopped by {number.name} after step {DUE}, which is saved." in run.stdout
    resumed = start(*OPTIONS, "--resume").end()
    assert saved_steps(resumed.stdout)[-1] == 12
    undisturbed = folder.with_name("undisturbed")
    start(*OPTIONS, "--name", "undisturbed").end()
    assert accuracies(folder) == accuracies(undisturbed) != []
    step, accuracy = max(accuracies(folder), key=lambda pair: pair[1])
    assert re.search(rf"best test accuracy +{accuracy:.2%} \(step {step}\)", resumed.stdout)


def test_during_a_save_and_during_a_step_the_present_step_is_saved(start, folder):
    run = start("--name", "run", "--steps", 100_000, "--evaluate-every", "5 steps", "--data.holdout", 0.01)
    run.wait_for(lambda: list(folder.glob("checkpoints/*-tmp*")))
    run.send(signal.SIGTERM)
    run.end(128 + signal.SIGTERM)
    last = saved_steps(run.stdout)[-1]
    assert f"Stopped by SIGTERM after step {last}, which is saved." in run.stdout
    assert (folder / "checkpoints" / str(last)).is_dir()
    resumed = start(
        "--name", "run", "--steps", 100_000, "--evaluate-every", "5 steps", "--data.holdout", 0.01, "--resume"
    )
    resumed.wait_for(rf"first step \({last + 1}\)")
    resumed.send(signal.SIGINT)
    resumed.end(128 + signal.SIGINT)
    assert saved_steps(resumed.stdout)[-1] > last


def test_a_second_signal_ends_it_at_once(start, folder):
    run = start(*OPTIONS, "--evaluate-every", "1e6 epochs")
    run.wait_for("first step")
    run.send(signal.SIGSTOP)  # so that it cannot end in between
    run.send(signal.SIGINT)
    run.send(signal.SIGTERM)
    run.send(signal.SIGCONT)
    run.end(128 + signal.SIGINT, 128 + signal.SIGTERM)  # which of the two is the second, the system decides
    assert "Stopped at once by a second signal, SIG" in run.stderr
    assert not saved_steps(run.stdout)


def test_two_processes_do_not_train_in_one_folder(start, folder):
    options = ["--name", "run", "--steps", 100_000, "--evaluate-every", "5 steps", "--data.holdout", 0.01]
    run = start(*options)
    run.wait_for("is saved")
    second = start(*options, "--resume").end(2)
    assert second.stderr.strip() == (
        "Error: Another process is training in runs/run; stop it first, or choose another --name."
    )
    run.kill()
    resumed = start(*options, "--resume")  # the dead hold no lock
    resumed.wait_for("first step")
