"""`flaxnets.capture`: outputs of modules by path equal those computed part by part."""

import numpy as np
import pytest
from flax import nnx
from flaxnets_tiny import Block, tiny_net

import flaxnets
from flaxnets.errors import ArchitectureError
from flaxnets.models import in_mode

IMAGES = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def model():
    return in_mode(tiny_net.build(num_classes=5, rngs=nnx.Rngs(0)), training=False)


def test_outputs_are_those_of_the_parts(model):
    result, seen = flaxnets.capture(model, "stem", "stages.0.0", "stages.0.0.convolution")(IMAGES)
    stem = model.stem(IMAGES)
    np.testing.assert_allclose(seen["stem"], stem, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen["stages.0.0"], model.stages[0][0](stem), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        seen["stages.0.0.convolution"], model.stages[0][0].convolution(stem), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(result, model(IMAGES), rtol=1e-4, atol=1e-5)
    assert type(model.stem) is Block  # and not a class with hooks


def test_unknown_modules_are_named_with_the_nearest(model):
    with pytest.raises(ArchitectureError, match=r"no module 'stages\.0\.9'\. Did you mean .*stages\.0\.0"):
        flaxnets.capture(model, "stages.0.9")
    with pytest.raises(
        ArchitectureError, match=r"no module 'xyz'\. Among others there are classifier, head, stem, head"
    ):
        flaxnets.capture(model, "xyz")


def test_a_module_that_is_never_called_is_refused():
    class Unused(nnx.Module):
        def __init__(self):
            self.used, self.unused = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.used(x)

    with pytest.raises(ArchitectureError, match=r"The module 'unused' is never called; give the path of one that is\."):
        flaxnets.capture(Unused(), "unused")(IMAGES)
