"""`flaxnets runs`: what is said of run folders."""

import io
import json
import sys

import pytest

from flaxnets.cli import main
from flaxnets.config import Data, Run
from flaxnets.training.folder import create_folder, lock_folder
from flaxnets.training.log import MetricsLog


def make(folder, *lines):
    create_folder(folder, Run(arch="resnet18"), {"class_names": ["a", "b"], "total_steps": 20})
    log = MetricsLog(folder, start=0)
    for step, split, metrics in lines:
        log.write(step, split, metrics)
    log.close()


def test_each_run_has_its_state_step_and_best_accuracy(tmp_path, capsys):
    tested = [(10, "test", {"accuracy": 0.75}), (20, "train", {"loss": 1.0}), (20, "test", {"accuracy": 0.5})]
    make(tmp_path / "done", *tested)
    make(tmp_path / "interrupted", *tested[:2])  # its last evaluation is missing
    make(tmp_path / "new")
    make(tmp_path / "running", (5, "train", {"loss": 1.0}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    lock = lock_folder(tmp_path / "running")
    assert main(["runs", str(tmp_path), "--json"]) == 0
    rows = {row.pop("name"): row for row in json.loads(capsys.readouterr().out)}
    assert main(["runs", str(tmp_path)]) == 0
    lock.close()
    assert {name: (row["state"], row["step"], row["best_accuracy"]) for name, row in rows.items()} == {
        "done": ("done", 20, 0.75),
        "interrupted": ("stopped", 20, 0.75),
        "new": ("stopped", 0, None),
        "running": ("running", 5, None),
    }
    assert all(0 <= row["age_seconds"] < 100 for row in rows.values())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["done"]]
    assert line.split()[:8] == ["done", "resnet18", "flaxnets_digits", "done", "20", "of", "20", "75.00%"]


@pytest.mark.parametrize("damage", [{"arch": 5}, {"data": {"name": None}}, {"data": {}}, {"total_steps": "20"}])
def test_a_damaged_folder_is_left_out_and_hides_no_other(tmp_path, capsys, damage):
    for name in ("good", "damaged"):
        make(tmp_path / name, (10, "test", {"accuracy": 0.75}))
    file = tmp_path / "damaged" / "run.json"
    record = json.loads(file.read_text())
    record["run"] |= damage
    file.write_text(json.dumps(record | damage))
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["good"]


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys):
    create_folder(tmp_path / "run", Run(data=Data(name="folder:[/x]")), {"class_names": ["a", "b"], "total_steps": 20})
    assert main(["runs", str(tmp_path)]) == 0
    assert "folder:[/x]" in capsys.readouterr().out


def test_a_terminal_that_lacks_a_letter_shows_the_others(tmp_path, monkeypatch):
    make(tmp_path / "zürich")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["runs", str(tmp_path)]) == 0
    assert b"z?rich" in terminal.buffer.getvalue()


def test_a_folder_without_runs_says_how_to_start_one(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"There are no runs in {tmp_path}; start one by `flaxnets train`.\n"
