"""Foreign plugins, installed by pip into a fresh virtual environment beside flaxnets, as their authors publish them."""

import json
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def environment(fresh_environment):
    fresh_environment.install(*(TESTS / name for name in ("third_party", "third_party_broken", "third_party_clash")))
    return fresh_environment


def test_all_are_listed_by_what_they_state(environment, tmp_path):
    done = environment.run(tmp_path, "-m", "flaxnets", "list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["tiny_net"] == {
        "name": "tiny_net", "package": "flaxnets-tiny 0.3.0", "num_params": 18_416, "paper": "tests/third_party"
    }  # fmt: skip
    assert rows["broken_net"]["package"] == "flaxnets-broken 0.1.0"
    assert rows["flaxnets:resnet50"]["num_params"] == 25_557_032
    assert rows["evilnet:resnet50"]["num_params"] == 241_712
    assert "resnet50" not in rows


@pytest.mark.parametrize("arch", ["tiny_net", "evilnet:resnet50"])
def test_a_foreign_architecture_trains(environment, tmp_path, data_dir, shared_folder, arch):
    options = ["--arch", arch, "--steps", "3", "--schedule.warmup", "0 steps", "--data.dir", str(data_dir)]
    done = environment.run(
        tmp_path, "-m", "flaxnets", "train", *options, "--compilation-cache", str(shared_folder / "compiled")
    )
    assert done.returncode == 0, done.stderr
    assert "best test accuracy" in done.stdout


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet50", "2 installed packages provide 'resnet50'. Pick one: --arch evilnet:resnet50 or --arch flaxnets:"),
        ("broken_net", "The plugin of 'broken_net' (package flaxnets-broken 0.1.0) cannot be imported: ModuleNotFound"),
    ],
)
def test_a_clash_and_a_broken_plugin_are_explained(environment, tmp_path, arch, message):
    done = environment.run(tmp_path, "-m", "flaxnets", "train", "--arch", arch)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: " + message)
    assert len(done.stderr.splitlines()) == 1


def test_the_published_parameters_of_the_foreign_plugin_are_right():
    import math

    import jax
    from flax import nnx
    from flaxnets_tiny import tiny_net

    model = nnx.eval_shape(lambda: tiny_net.build(num_classes=1000, rngs=nnx.Rngs(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == tiny_net.num_params
