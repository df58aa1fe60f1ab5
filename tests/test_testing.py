"""The checks for plugin authors pass a good architecture and find each kind of fault."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flaxnets_tiny import Block, tiny_net

from flaxnets.layers import GlobalMean
from flaxnets.plugin import ImageClassifier
from flaxnets.testing import check_architecture, check_behaviour, check_structure


def test_a_good_architecture_passes():
    check_architecture(tiny_net, image_size=16)


def test_a_wrong_number_of_parameters_is_found():
    with pytest.raises(AssertionError, match="it has 18,416 parameters; num_params says 18,415"):
        check_structure(dataclasses.replace(tiny_net, num_params=18_415))


class Faulty(nnx.Module):
    """Adds a fault to a head."""

    def __init__(self, fault: str, rngs: nnx.Rngs):
        self.fault = fault
        self.pool = GlobalMean()
        self.unused = nnx.Linear(2, 2, rngs=rngs) if fault == "unused" else None
        self.statistic = nnx.BatchStat(jnp.zeros(())) if fault == "statistic" else None
        self.count = nnx.Variable(jnp.zeros(())) if fault == "variable" else None

    def __call__(self, x):
        if self.fault == "shape":
            return x
        x = self.pool(x)
        if self.fault == "neighbours":
            x = x - x.mean(0)
        if self.fault == "infinite":
            x = x / 0
        if self.fault == "no gradient":
            x = jax.lax.stop_gradient(x)
        return x


def build(fault, *, num_classes=1000, in_channels=3, dtype=jnp.float32, rngs):
    return ImageClassifier(
        stem=Block(in_channels, 8, dtype=dtype, rngs=rngs),
        stages=[[Block(8, 16, dtype=dtype, rngs=rngs)]],
        head=Faulty(fault, rngs),
        classifier=nnx.Linear(16, num_classes, dtype=dtype, rngs=rngs) if num_classes else None,
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("variable", "flaxnets would not know how to train"),
        ("shape", r"logits are \(2, 56, 56, 1000\) for 2 images and 1000 classes"),
        ("unused", r"no gradient reaches \['head'\]\['unused'\]"),
        ("no gradient", "no gradient reaches"),
        ("statistic", r"training leaves the batch statistic \['head'\]\['statistic'\] as it is"),
        ("neighbours", "inference of an image depends on the others in its batch"),
        ("infinite", "logits are not finite"),
    ],
)
def test_each_fault_is_found(fault, message):
    architecture = dataclasses.replace(tiny_net, build=functools.partial(build, fault))
    with pytest.raises(AssertionError, match=message):
        check_structure(architecture) if fault in ("variable", "shape") else check_behaviour(
            architecture, image_size=16
        )


def test_a_build_of_another_kind_is_found():
    architecture = dataclasses.replace(tiny_net, build=lambda *, rngs, **_: nnx.Linear(1, 1, rngs=rngs))
    with pytest.raises(AssertionError, match="build returns a Linear, not an ImageClassifier"):
        check_structure(architecture)
