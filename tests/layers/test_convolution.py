"""The convolution against the plain lowering: values and both gradients, on any shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.layers import ConvNorm, Convolution, GlobalMean, MaxPool, convolve, he_normal, uniform_fan_in
from flaxnets.layers.convolution import Geometry, _better_as_product, _plain


@st.composite
def cases(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    size = tuple(draw(st.integers(k, 9)) for k in kernel)
    padding = tuple(tuple(draw(st.integers(0, k // 2)) for _ in range(2)) for k in kernel)
    groups = draw(st.integers(1, 3))
    channels = tuple(groups * draw(st.integers(1, 3)) for _ in range(2))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return draw(st.integers(1, 3)), size, kernel, channels, Geometry(strides, padding, groups)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_equal_the_plain_form(case):
    batch, size, kernel_size, (cin, cout), geometry = case
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((batch, *size, cin)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((*kernel_size, cin // geometry.groups, cout)), jnp.float32)
    expected, pull_plain = jax.vjp(functools.partial(_plain, geometry=geometry), images, kernel)
    actual, pull = jax.vjp(functools.partial(convolve, geometry=geometry), images, kernel)
    cotangent = jnp.asarray(random.standard_normal(expected.shape), jnp.float32)
    for a, b in zip((actual, *pull(cotangent)), (expected, *pull_plain(cotangent)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max() + 1))


def test_a_convolution_is_a_sum_over_its_window():
    layer = Convolution(2, 3, 3, 2, use_bias=True, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(3.0)
    images = np.random.default_rng(0).standard_normal((1, 5, 4, 2)).astype(np.float32)
    padded = np.pad(images[0], ((1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(layer.kernel[...])
    expected = [
        [(padded[y : y + 3, x : x + 3, :, None] * kernel).sum((0, 1, 2)) + np.arange(3) for x in (0, 2)]
        for y in (0, 2, 4)
    ]
    np.testing.assert_allclose(layer(jnp.asarray(images))[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8, 4), (1, 2, 2, 4)])
def test_other_platforms_get_one_plain_convolution(shape):
    """On a GPU or TPU nothing but `conv_general_dilated` is left of it, forward and backward."""
    geometry = Geometry(padding=((0, 0), (0, 0)))
    assert _better_as_product(shape, (1, 1, 4, 4), geometry)
    loss = jax.grad(lambda images, kernel: convolve(images, kernel, geometry).sum(), argnums=(0, 1))
    arguments = jnp.ones(shape), jnp.ones((1, 1, 4, 4))
    text = {
        platform: jax.jit(loss).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu", "cuda")
    }
    assert "convolution" not in text["cpu"]
    assert "dot_general" in text["cpu"]
    for platform in ("tpu", "cuda"):
        assert "convolution" in text[platform]
        assert "dot_general" not in text[platform]


def test_computation_is_in_dtype_and_parameters_in_float32():
    unit = ConvNorm(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert unit(jnp.ones((2, 5, 5, 3))).dtype == jnp.bfloat16
    assert {array.dtype for array in jax.tree.leaves(nnx.state(unit))} == {jnp.dtype("float32")}


def test_conv_norm_normalises_then_activates():
    unit = ConvNorm(3, 8, rngs=nnx.Rngs(0))
    x = unit(jax.random.normal(jax.random.key(0), (16, 7, 7, 3)))
    assert float(x.min()) == 0
    unit.activation = None
    x = unit(jax.random.normal(jax.random.key(0), (16, 7, 7, 3)))
    np.testing.assert_allclose(x.mean((0, 1, 2)), np.zeros(8), atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2)), np.ones(8), atol=1e-3)
    assert not ConvNorm(3, 8, zero_scale=True, activation=None, rngs=nnx.Rngs(0))(x[..., :3]).any()


def test_pooling():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 5, 2)), jnp.float32)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    expected = [[padded[y : y + 3, z : z + 3].max((0, 1)) for z in (0, 2, 4)] for y in (0, 2, 4)]
    np.testing.assert_array_equal(MaxPool(3, 2)(x)[0], expected)
    np.testing.assert_allclose(GlobalMean()(x), np.mean(x, (1, 2)), rtol=1e-6)


def test_initial_values_have_the_published_spread_and_are_the_same_inside_jit():
    key = jax.random.key(3)
    kernel = he_normal(key, (3, 3, 32, 64))
    assert float(kernel.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(kernel.mean()) == pytest.approx(0, abs=0.002)
    np.testing.assert_array_equal(kernel, jax.jit(lambda key: he_normal(key, (3, 3, 32, 64)))(key))
    uniform = uniform_fan_in(key, (100, 50))
    assert 0.099 < float(jnp.abs(uniform).max()) <= 0.1
    assert (he_normal(jax.random.key(4), (3, 3, 32, 64)) != kernel).all()
