"""The benchmark of the data pipeline runs, and its figures fit together."""

import json

import pytest

from flaxnets.cli import main


def test_bench_data_measures_pipeline_and_bare_speed(flaxnets):
    options = ["--images", 32, "--batch-size", 16, "--rounds", 1, "--workers", 1, "--json"]
    result = json.loads(flaxnets("bench-data", *options).stdout)
    assert result["workers"] == 1
    assert result["pipeline_per_core"] == result["pipeline"] > 20
    assert result["ratio"] == result["pipeline"] / result["bare"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch-size 0", "--batch-size cannot be 0; give a whole number above 0."),
        ("--rounds 0", "--rounds cannot be 0; give a whole number above 0."),
        ("--images 0", "--images cannot be 0; give a whole number above 0."),
        ("--workers -1", "--workers cannot be -1; give a whole number above 0."),
        ("--images 10", "--images 10 is less than a batch of 64; give more, or a smaller --batch-size."),
    ],
)
def test_impossible_numbers_are_refused(option, message, capsys):
    assert main(["bench-data", *option.split()]) == 2
    assert capsys.readouterr().err == f"Error: {message}\n"
