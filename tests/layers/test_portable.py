"""Programs for others: one operator a layer where that is asked for, and batches of any size."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxnets.layers import CBAM, Convolution, MaxPool
from flaxnets.layers.portable import portable
from flaxnets.models import in_mode

LAYERS = {
    "depthwise": lambda rngs: Convolution(16, 16, groups=16, rngs=rngs),
    "pointwise": lambda rngs: Convolution(16, 16, 1, rngs=rngs),
    "grouped": lambda rngs: Convolution(16, 16, groups=4, strides=2, rngs=rngs),
    "tensorflow": lambda rngs: Convolution(16, 16, 5, strides=2, padding="same", groups=16, rngs=rngs),
    "pool": lambda rngs: MaxPool(3, 2),
    "cbam": lambda rngs: CBAM(16, rngs=rngs),
}
OPERATORS = {"pool": "reduce_window_max"}


def operators(function, *arguments):
    """Names of all operators, those of branches and calls too."""

    def inner(jaxpr):
        for equation in jaxpr.eqns:
            yield equation.primitive.name
            for value in jax.tree.leaves(list(equation.params.values())):
                if hasattr(value, "eqns"):
                    yield from inner(getattr(value, "jaxpr", value))

    return list(inner(jax.make_jaxpr(function)(*arguments).jaxpr))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_portable_layer_is_one_operator_and_computes_the_same(kind):
    layer = in_mode(LAYERS[kind](nnx.Rngs(0)), training=False)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 9, 16)), jnp.float32)
    own, expected = operators(layer, x), layer(x)
    with portable():
        names, found = operators(lambda x: layer(x), x), layer(x)
    assert ("platform_index" in own) == (kind != "cbam")
    assert "platform_index" not in names
    assert names.count(OPERATORS.get(kind, "conv_general_dilated")) == 1
    assert "argmax" not in names
    assert names.count("slice") <= (4 if kind == "pool" else 0)  # of the border
    assert operators(layer, x) == own  # as before
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "pool", "cbam"])
def test_a_batch_of_unknown_size_is_computed_as_one_of_that_size(kind):
    layer = in_mode(LAYERS[kind](nnx.Rngs(0)), training=False)
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 9, 9, 16), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: layer(x)), platforms=("cpu", "cuda", "tpu"))(shape)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 9, 9, 16)), jnp.float32)
    np.testing.assert_allclose(exported.call(x), layer(x), rtol=1e-5, atol=1e-5)
