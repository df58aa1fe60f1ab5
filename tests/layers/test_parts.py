"""Padding, pooling, dropping and rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from flaxnets.errors import ArchitectureError
from flaxnets.layers import (
    AveragePool,
    BatchNorm,
    ConvNorm,
    Convolution,
    MaxPool,
    StochasticDepth,
    dropout,
    he_normal,
    round_channels,
)
from flaxnets.layers.convolution import same_padding
from flaxnets.layers.pooling import largest


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("strides", [1, 2])
def test_same_padding_is_tensorflows(size, kernel_size, strides):
    """Pads only what the windows need, the odd pixel at the end; so where nothing is lost, windows start at pixel 0."""
    images = np.random.default_rng(0).standard_normal((1, size, size, 2)).astype(np.float32)
    layer = Convolution(2, 3, kernel_size, strides, padding="same", rngs=nnx.Rngs(0))
    out = -(-size // strides)
    total = max((out - 1) * strides + kernel_size - size, 0)
    padded = np.pad(images, ((0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)))
    kernel = np.asarray(layer.kernel[...])
    expected = np.zeros((1, out, out, 3))
    for y in range(out):
        for x in range(out):
            window = padded[0, y * strides :, x * strides :][:kernel_size, :kernel_size]
            expected[0, y, x] = np.einsum("hwc,hwcd->d", window, kernel)
    np.testing.assert_allclose(layer(jnp.asarray(images)), expected, rtol=1e-4, atol=1e-5)


def test_paddings_agree_only_where_nothing_strides():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 2)), jnp.float32)

    def both(layer, **settings):
        return [layer(padding=padding, **settings)(images) for padding in ("symmetric", "same")]

    def convolution(strides, padding):
        return Convolution(2, 3, 3, strides, padding=padding, rngs=nnx.Rngs(0))

    symmetric, same = both(convolution, strides=1)
    np.testing.assert_array_equal(symmetric, same)
    symmetric, same = both(convolution, strides=2)
    assert not np.allclose(symmetric, same)
    symmetric, same = both(lambda padding: MaxPool(3, 2, padding=padding))
    assert symmetric[0, 0, 0, 0] == images[0, :2, :2, 0].max()
    assert same[0, 0, 0, 0] == images[0, :3, :3, 0].max()


def test_average_pool_counts_only_pixels_that_exist():
    images = jnp.arange(15.0).reshape(1, 3, 5, 1)
    pooled = AveragePool(2)(images)[0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[3, 5, 6.5], [10.5, 12.5, 14]])


def test_conv_norm_takes_the_epsilon_of_its_padding():
    def epsilon(**settings):
        return ConvNorm(1, 1, rngs=nnx.Rngs(0), **settings).norm.epsilon

    assert epsilon() == 1e-5
    assert epsilon(padding="same") == 1e-3
    assert epsilon(padding="same", epsilon=1e-4) == 1e-4


def test_initial_kernels_count_what_one_input_feeds():
    """A depthwise kernel of 64 channels has the spread of one of a single channel."""
    key = jax.random.key(0)
    dense = he_normal(key, (3, 3, 64, 256))
    depthwise = he_normal(key, (3, 3, 1, 4096), groups=4096)
    np.testing.assert_allclose(dense.std(), (2 / (9 * 256)) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(depthwise.std(), (2 / 9) ** 0.5, rtol=0.02)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    layer = StochasticDepth(0.25, rngs=nnx.Rngs(0))
    dropped = np.asarray(layer(jnp.ones((4000, 2, 3))))
    assert (dropped == dropped[:, :1, :1]).all()
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3])
    assert abs(dropped.mean() - 1) < 0.05
    assert not (dropped == layer(jnp.ones((4000, 2, 3)))).all()


def test_stochastic_depth_obeys_views_and_has_a_stream_of_its_own():
    rngs = nnx.Rngs(0)
    first, second = StochasticDepth(0.5, rngs=rngs), StochasticDepth(0.5, rngs=rngs)
    images = jnp.ones((64, 1))
    assert not (first(images) == second(images)).all()
    inference = nnx.view(first, deterministic=True)
    assert inference(images) is images
    assert not first.deterministic
    assert len(jax.tree.leaves(nnx.state(first, nnx.RngState))) == 2


def test_a_rate_of_0_makes_no_dropout():
    assert dropout(0.0, rngs=nnx.Rngs(0)) is None
    assert isinstance(dropout(0.1, rngs=nnx.Rngs(0)), nnx.Dropout)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(32 * 0.35, 16), (24 * 0.5, 16), (16 * 1.4, 24), (320 * 1.4, 448), (3, 8), (11, 16)]
)
def test_channels_round_to_multiples_of_8_but_lose_at_most_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded


def test_no_channels_are_refused():
    with pytest.raises(ArchitectureError, match=r"cannot have 0 channels; give a width above 0\.$"):
        round_channels(0)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("window", "strides"), [(3, 2), (3, 1), (2, 2), (5, 3)])
def test_max_pool_hands_the_gradient_to_the_first_largest_pixel_as_xla_does(window, strides, padding):
    """Few different values, so that nearly every window has ties."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 3, (2, 9, 8, 3)), jnp.float32)
    layer = MaxPool(window, strides, padding=padding)
    both = (window // 2, (window - 1) // 2)
    pads = (both, both) if padding == "symmetric" else same_padding((9, 8), (window,) * 2, (strides,) * 2)

    def plain(images):
        steps = (1, strides, strides, 1)
        return lax.reduce_window(images, -jnp.inf, lax.max, (1, window, window, 1), steps, ((0, 0), *pads, (0, 0)))

    expected, pull_plain = jax.vjp(plain, images)
    actual, pull = jax.vjp(layer, images)
    np.testing.assert_array_equal(actual, expected)
    cotangent = jnp.asarray(random.standard_normal(expected.shape), jnp.float32)
    np.testing.assert_allclose(pull(cotangent)[0], pull_plain(cotangent)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_flaxs(training, dtype):
    """Values, gradients and running averages, where the mean is several deviations from 0."""
    ours = BatchNorm(4, momentum=0.9, dtype=dtype, rngs=nnx.Rngs(0))
    flaxs = nnx.BatchNorm(4, momentum=0.9, dtype=dtype, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((8, 5, 5, 4)) * [0.1, 1, 2, 3] + [3, -2, 0, 1], dtype)
    cotangent = jnp.asarray(random.standard_normal(images.shape), dtype)
    scale, bias = jnp.array([0.5, 1, 2, -1]), jnp.array([0, 1, -1, 0.5])

    def run(layer, images, scale, bias):
        layer.use_running_average = not training
        layer.scale[...], layer.bias[...] = scale, bias
        result = layer(images)
        return result, (layer.mean[...], layer.var[...])

    results = []
    for layer in (ours, flaxs):
        graph, state = nnx.split(layer)
        state = nnx.to_pure_dict(state)
        value, pull, averages = jax.vjp(
            lambda *arguments, graph=graph, state=state: run(nnx.merge(graph, state), *arguments),
            *(images, scale, bias),
            has_aux=True,
        )
        assert value.dtype == dtype
        results.append((value, *pull(cotangent), *averages))
    tolerance = 1e-4 if dtype == jnp.float32 else 0.05
    for actual, expected in zip(*results, strict=True):
        largest = float(jnp.abs(expected).max())
        np.testing.assert_allclose(
            np.asarray(actual, np.float32), np.asarray(expected, np.float32), rtol=tolerance, atol=tolerance * largest
        )


@pytest.mark.parametrize("axis", [1, -1])
def test_largest_hands_the_gradient_to_one_value_however_its_input_is_rounded(axis):
    """The input is a fused product and sum, which a compiler may round differently in each place that uses it."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((4, 49, 64)), jnp.float32)
    np.testing.assert_array_equal(largest(x, axis), x.max(axis, keepdims=True))
    gradient = jax.jit(jax.grad(lambda x: largest(1.1 * x + 0.2, axis).sum()))(x)
    np.testing.assert_array_equal(gradient, np.where(x == x.max(axis, keepdims=True), np.float32(1.1), 0))
    ties = jax.grad(lambda x: largest(x, axis).sum())(jnp.ones((2, 3, 4)))
    assert (ties.sum(axis) == 1).all()
    assert (jnp.take(ties, 0, axis) == 1).all()
