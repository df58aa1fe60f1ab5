"""`flaxnets plan`, for simulated devices and for TPUs that are not there."""

import json
import os
import re

import jax
import pytest
from extras import needs
from flax import nnx
from flaxnets_tiny import tiny_net

from flaxnets.cli import main
from flaxnets.planning.topologies import ALONE
from flaxnets.summaries import summary

LIBTPU = needs("libtpu", "tpu")
SMALL = ["--arch", "tiny_net", "--classes", 10, "--train-images", 6400]


@pytest.fixture
def planned(flaxnets, shared_folder):
    """Plans as JSON, and what was said meanwhile."""

    def plan(*arguments):
        done = flaxnets("plan", *arguments, "--json", "--compilation-cache", shared_folder / "plans")
        return json.loads(done.stdout), done.stderr

    return plan


def test_simulated_devices_reduce_all_gradients_at_once_and_the_same_bytes(planned):
    plans, said = planned(*SMALL, "--topology", "cpu:2", "cpu:8", "--batch-per-device", 4, 8)
    assert [(plan["devices"], plan["batch_size"]) for plan in plans] == [(2, 8), (2, 16), (8, 32), (8, 64)]
    assert tiny_net.num_params
    params = tiny_net.num_params - 990 * 17  # ten classes
    for plan in plans:
        assert plan["problem"] is None
        assert plan["seconds"] is None  # nothing is published of a simulated device
        reduced = plan["collectives"]["all-reduce"]["bytes"]
        assert params * 4 <= reduced < params * 4 + 2000  # and batch statistics, and three sums
        assert plan["collectives"] == plans[0]["collectives"]
        assert plan["params"] + plan["optimizer"] + plan["batch"] < plan["total"]
    assert plans[1]["operations"] > 1.5 * plans[0]["operations"]
    assert plans[3]["batch"] == 8 * (32 * 32 * 3 + 4 + 4)
    assert said.count("compiling") == 4
    again, said = planned(*SMALL, "--topology", "cpu:8", "cpu:2", "--batch-per-device", 8)
    assert said == ""  # kept, in whatever order and among whichever others
    assert again == [plans[3], plans[1]]


@LIBTPU
def test_a_real_tpu_step_is_compiled_with_none_attached(planned):
    options = ["--data.batch-size", 64, "--epochs", 3]
    (plan,), said = planned(*SMALL, *options, "--topology", "v5e:2x2", "--suggest")
    assert said.startswith("compiling tiny_net, 16 images a device, for v5e:2x2 (4 devices)\n")
    assert plan["device_memory"] == 2**34
    assert plan["collectives"]["all-reduce"]["count"] == 1
    assert plan["total"] > plan["params"] + plan["optimizer"] + plan["batch"]
    forward = summary(tiny_net.build(num_classes=10, rngs=nnx.Rngs(0)), 32).macs * 2 * 16
    assert 2 * forward < plan["operations"] < 4.5 * forward  # forward, and twice that backward
    seconds = plan["seconds"]
    assert seconds["step"] == max(seconds["operations"], seconds["memory"]) + seconds["links"]
    assert plan["images_per_second"] == pytest.approx(64 / seconds["step"])
    assert plan["epoch_seconds"] == pytest.approx(100 * seconds["step"])
    assert plan["run_seconds"] == pytest.approx(300 * seconds["step"])
    tried = plan["suggestions"]
    assert list(tried) == ["--dtype bfloat16", "--rematerialise", "--data.batch-size 128", "--data.batch-size 32"]
    assert tried["--data.batch-size 128"]["operations"] > 1.5 * plan["operations"]
    assert tried["--dtype bfloat16"]["bytes_accessed"] != plan["bytes_accessed"]


@pytest.fixture
def plan_here(tiny_plugin, tmp_path, monkeypatch, capsys):
    """`flaxnets plan` in this process, which has 8 simulated devices: exit code, output and error."""
    assert jax.device_count() == 8  # it starts here, before `plan` asks for other numbers
    monkeypatch.syspath_prepend(tiny_plugin)
    for name in (*ALONE, "JAX_PLATFORMS", "XLA_FLAGS"):  # put back afterwards
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def run(*arguments):
        code = main(["plan", *map(str, arguments), "--compilation-cache", str(tmp_path / "plans")])
        return code, *capsys.readouterr()

    return run


@LIBTPU
def test_what_does_not_fit_on_a_tpu_is_refused(flaxnets, shared_folder):
    options = ["--arch", "tiny_net", "--classes", 10**9, "--train-images", 10, "--dtype", "bfloat16", "--rematerialise"]
    places = ["--topology", "v5e:1x1", "--compilation-cache", shared_folder / "plans"]
    done = flaxnets("plan", *options, "--data.batch-size", 1, *places, code=2)
    assert done.stdout == ""
    *_, sentence = done.stderr.splitlines()
    found = re.fullmatch(
        r"Error: tiny_net in bfloat16 with 1 images a device does not fit on v5e:1x1: it needs ([\d.]+) GiB of "
        r"15\.75 GiB, ([\d.]+) GiB too much; use a smaller network or smaller images\.",
        sentence,
    )
    assert found, done.stderr
    assert float(found[1]) > 16 * 4 * 10**9 / 2**30  # the classifier's kernel alone
    assert float(found[2]) == pytest.approx(float(found[1]) - 15.75, abs=0.02)


def test_text_shows_one_plan_in_full_and_several_as_a_table(plan_here):
    code, one, _ = plan_here(*SMALL, "--topology", "cpu:2", "--batch-size", 8)
    assert code == 0
    assert re.search(r"collectives +\d+ all-reduce, \d+\.\d\d MiB", one)
    assert "not estimated: nothing is published of a simulated device" in one
    _, several, _ = plan_here(*SMALL, "--topology", "cpu:2", "--batch-size", 8, 9)
    assert re.search(r"^ *cpu:2 +2 +8 +4 ", several, re.MULTILINE)
    assert "cpu:2: A batch of 9 images cannot be split evenly over 2 devices; use --data.batch-size 8 or 10." in several


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            [*SMALL, "--topology", "cpu:3"],
            "A batch of 64 images cannot be split evenly over 3 devices; use --data.batch-size 63 or 66.",
        ),
        pytest.param(
            [*SMALL, "--topology", "v5e:3x3"],
            'libtpu cannot compile for v5e:3x3 (Topology layout "v5e:3x3" is not divisible by the given (or default) '
            'chips_per_host_bounds "2x2x1"). Choose by --topology one of v5e:1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, '
            "16x16; cpu:N.",
            marks=LIBTPU,
        ),
        (
            ["--data.name", "folder:nowhere", "--topology", "cpu:2"],
            "Cannot read the folder nowhere: No such file or directory; give one that you may read after folder:; or "
            "plan without it by --train-images and --classes.",
        ),
        (["--topology", "cpu:2", "--batch-size", 0], "--batch-size cannot be 0; give a whole number above 0."),
    ],
    ids=["uneven", "shape", "no data", "no batch"],
)
def test_a_mistake_gets_one_sentence(plan_here, options, sentence):
    assert plan_here(*options) == (2, "", f"Error: {sentence}\n")
