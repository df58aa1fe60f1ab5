"""The benchmark of the data pipeline runs, and its figures fit together."""

import json


def test_bench_data_measures_pipeline_and_bare_speed(flaxnets):
    options = ["--images", 32, "--batch-size", 16, "--rounds", 1, "--workers", 1, "--json"]
    result = json.loads(flaxnets("bench-data", *options).stdout)
    assert result["workers"] == 1
    assert result["pipeline_per_core"] == result["pipeline"] > 20
    assert result["ratio"] == result["pipeline"] / result["bare"]
