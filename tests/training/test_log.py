"""Metrics on disk."""

import json
import resource
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from flaxnets.errors import RunFolderError
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


@pytest.mark.parametrize(
    "damage", [b"garbage", b"\xff\xfe", b"5", b"[]", b'{"split": "test"}', b'{"step": 3, "split": "test"}']
)
def test_a_damaged_line_is_left_out_with_a_warning_and_training_continues(tmp_path, caplog, damage):
    whole = [b'{"step": 1, "split": "train"}', b'{"step": 2, "split": "test", "accuracy": 0.5}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([whole[0], damage, whole[1], b""]))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert caplog.messages == [f"{tmp_path / 'metrics.jsonl'} is damaged; lines left out: 1."]
    MetricsLog(tmp_path, start=2).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"\n".join([*whole, b""])


def test_a_full_disk_at_the_start_of_a_continued_run_is_an_error_and_loses_nothing(tmp_path):
    content = '{"step": 1, "split": "train"}\n{"step": 2, "split": "train"}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        MetricsLog(tmp_path, start=2).close()  # nothing to drop, nothing to write
        with pytest.raises(RunFolderError, match=r"Cannot write metrics to .* \(File too large\); mend that, and"):
            MetricsLog(tmp_path, start=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.jsonl").read_text() == content
    assert not (tmp_path / "metrics.tmp").exists()


def test_a_full_disk_delays_lines_and_loses_none(tmp_path, caplog):
    """A limit on the size of files stands for the disk: the next line is torn where it is reached."""
    log = MetricsLog(tmp_path, start=0)
    log.write(1, "train", {"loss": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "metrics.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
    try:
        for step in (2, 3):
            log.write(step, "train", {"loss": 0.25})
        assert [line["step"] for line in read_metrics(tmp_path)] == [1]
        assert log.newest("train")["step"] == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write(4, "train", {"loss": 0.125})
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert caplog.text.count("Cannot write metrics: File too large. Training goes on") == 1


def test_lines_that_never_reach_the_disk_are_an_error_at_the_end(tmp_path):
    log = MetricsLog(tmp_path, start=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        log.write(1, "train", {"loss": 0.25})
        with pytest.raises(RunFolderError, match=r"could not be written to .*metrics\.jsonl \(File too large\); mend"):
            log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_events_hold_curves_configuration_and_images(tmp_path):
    log = MetricsLog(tmp_path, start=0)
    log.describe({"seed": 3}, np.zeros((2, 4, 5, 3), np.uint8))
    log.write(7, "test", {"accuracy": 0.5})
    log.close()
    log = MetricsLog(tmp_path, start=7)
    log.write(8, "test", {"accuracy": 0.75})
    log.close()
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    first, second = (list(events(file)) for file in files)
    values = {value.tag: value for event in first for value in event.summary.value}
    assert "| seed | 3 |" in values["configuration/text_summary"].tensor.string_val[0].decode()
    assert (values["images"].image.width, values["images"].image.height) == (10, 4)
    assert values["test/accuracy"].simple_value == 0.5
    assert [event.step for event in second if event.HasField("session_log")] == [8]


def events(file):
    """The records of an event file: length, checksum, message, checksum."""
    content = file.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
