"""Metrics on disk."""

import json

from flaxnets.training.log import MetricsLog, read_metrics


def test_lines_are_appended_and_a_continued_run_drops_what_it_will_write_again(tmp_path):
    log = MetricsLog(tmp_path, start=0)
    for step in (5, 10, 15):
        log.write(step, "train", {"loss": 1 / step})
    log.close()
    log = MetricsLog(tmp_path, start=10)
    log.write(12, "test", {"accuracy": 0.5})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [(5, "train"), (10, "train"), (12, "test")]
    assert lines[0]["loss"] == 0.2
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_line_that_a_kill_cut_short_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\n{"step": 2, "spl')
    assert read_metrics(tmp_path) == [{"step": 1, "split": "train"}]
    assert read_metrics(tmp_path / "none") == []
