"""The attention layers against slow, obvious NumPy."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxnets.errors import ArchitectureError
from flaxnets.layers import CBAM, ChannelAttention, ConvNorm, SpatialAttention, SqueezeExcite
from flaxnets.models import in_mode

Layer = TypeVar("Layer", bound=nnx.Module)

RANDOM = np.random.default_rng(0)
IMAGES: Any = RANDOM.standard_normal((2, 5, 7, 32)).astype(np.float32)


def randomised(layer: Layer) -> Layer:
    """The layer with every parameter and running average drawn anew, in inference mode."""
    for _, variable in nnx.to_flat_state(nnx.state(layer, (nnx.Param, nnx.BatchStat))):
        variable[...] = jnp.asarray(RANDOM.uniform(0.2, 1, variable.shape), jnp.float32)
    return in_mode(layer, training=False)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(layer, x):
    bias = 0 if layer.bias is None else np.asarray(layer.bias[...])
    return x @ np.asarray(layer.kernel[...]) + bias


def perceptron(layer, x):
    return linear(layer.expand, np.maximum(linear(layer.reduce, x), 0))


def weigh_channels(layer, images):
    result = np.empty_like(images)
    for index, image in enumerate(images):
        pixels = image.reshape(-1, image.shape[-1])
        weights = sigmoid(perceptron(layer, pixels.mean(0)) + perceptron(layer, pixels.max(0)))
        result[index] = image * weights
    return result


def weigh_pixels(layer, images, norm=None):
    kernel = np.asarray((layer.mix.convolution if norm else layer.mix).kernel[...])[..., 0]
    reach = kernel.shape[0] // 2
    result = np.empty_like(images)
    for index, image in enumerate(images):
        pooled = np.stack([image.max(-1), image.mean(-1)], -1)
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                total = 0.0
                for dy in range(-reach, reach + 1):
                    for dx in range(-reach, reach + 1):
                        if 0 <= y + dy < image.shape[0] and 0 <= x + dx < image.shape[1]:
                            total += kernel[dy + reach, dx + reach] @ pooled[y + dy, x + dx]
                if norm:
                    scale, bias, mean, var = (
                        np.asarray(v[...])[0] for v in (norm.scale, norm.bias, norm.mean, norm.var)
                    )
                    total = (total - mean) / np.sqrt(var + 1e-5) * scale + bias
                result[index, y, x] = image[y, x] * sigmoid(total)
    return result


def test_squeeze_excite():
    layer = randomised(SqueezeExcite(32, rngs=nnx.Rngs(0)))
    weights = sigmoid(perceptron(layer, IMAGES.mean((1, 2))))
    np.testing.assert_allclose(layer(IMAGES), IMAGES * weights[:, None, None], rtol=1e-5, atol=1e-6)


def test_squeeze_excite_with_the_gate_and_width_of_mobilenet_v3():
    layer = randomised(SqueezeExcite(32, 5, gate=jax.nn.hard_sigmoid, rngs=nnx.Rngs(0)))
    assert layer.reduce.kernel.shape == (32, 5)
    weights = np.clip(perceptron(layer, IMAGES.mean((1, 2))) + 3, 0, 6) / 6
    np.testing.assert_allclose(layer(IMAGES), IMAGES * weights[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "hidden"), [(16, 8), (64, 8), (128, 8), (200, 16), (256, 16), (2048, 128)])
def test_squeeze_excite_rounds_a_sixteenth_to_multiples_of_8(channels, hidden):
    assert nnx.eval_shape(lambda: SqueezeExcite(channels, rngs=nnx.Rngs(0))).reduce.kernel.shape == (channels, hidden)


@pytest.mark.parametrize("mlp_bias", [True, False])
def test_channel_attention(mlp_bias):
    layer = randomised(ChannelAttention(32, reduction=8, mlp_bias=mlp_bias, rngs=nnx.Rngs(0)))
    assert layer.reduce.kernel.shape == (32, 4)
    np.testing.assert_allclose(layer(IMAGES), weigh_channels(layer, IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_spatial_attention(kernel_size):
    layer = randomised(SpatialAttention(kernel_size, norm=False, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(layer(IMAGES), weigh_pixels(layer, IMAGES), rtol=1e-4, atol=1e-5)


def test_spatial_attention_with_batch_norm():
    layer = randomised(SpatialAttention(rngs=nnx.Rngs(0)))
    assert isinstance(layer.mix, ConvNorm)
    np.testing.assert_allclose(layer(IMAGES), weigh_pixels(layer, IMAGES, layer.mix.norm), rtol=1e-4, atol=1e-5)


def test_cbam_weighs_channels_then_pixels():
    layer = randomised(CBAM(32, kernel_size=3, spatial_norm=False, rngs=nnx.Rngs(0)))
    expected = weigh_pixels(layer.spatial, weigh_channels(layer.channel, IMAGES))
    np.testing.assert_allclose(layer(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [0, 2, -3, 3.0])
def test_a_kernel_without_a_middle_is_refused(kernel_size):
    with pytest.raises(ArchitectureError, match="give an odd number of pixels, such as kernel_size=7"):
        SpatialAttention(kernel_size, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("layer", [SqueezeExcite, ChannelAttention, CBAM])
def test_attention_keeps_the_type_of_the_computation(layer):
    made = nnx.eval_shape(lambda: in_mode(layer(32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), training=False))
    graph, state = nnx.split(made)
    output = jax.eval_shape(
        lambda state, x: nnx.merge(graph, state)(x), state, jax.ShapeDtypeStruct((2, 5, 7, 32), jnp.bfloat16)
    )
    assert (output.shape, output.dtype) == ((2, 5, 7, 32), jnp.bfloat16)
