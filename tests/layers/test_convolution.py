"""The convolution against a reference in NumPy: values and both gradients, on any shape."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.errors import ConfigError
from flaxnets.layers import ConvNorm, Convolution, GlobalMean, MaxPool, convolve, he_normal, uniform_fan_in
from flaxnets.layers.convolution import cpu_form
from flaxnets.layers.lowerings import Geometry, blocks, patches, plain, plain_forward, shifted
from flaxnets.layers.winograd import winograd

# What chooses or names data without computing.
CHEAP = ("stablehlo.constant", "stablehlo.broadcast_in_dim", "stablehlo.case", "stablehlo.return")
FORMS = {form.__name__: form for form in (plain, patches, plain_forward, blocks, shifted, winograd)}


@st.composite
def cases(draw, form="any"):
    """Images, kernel and geometry that a form can take, of any size, stride, padding, dilation and grouping."""
    if form == "winograd":
        kernel_size, dilation, strides, most_padding = (3, 3), (1, 1), (1, 1), 2
    else:
        kernel_size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
        strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        most_padding = 10
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    padding = tuple(tuple(draw(st.integers(0, min(pixels, most_padding))) for _ in range(2)) for pixels in reach)
    size = tuple(
        max(1, pixels - sum(pad)) + draw(st.integers(0, 20)) for pixels, pad in zip(reach, padding, strict=True)
    )
    dense = {"patches", "plain_forward", "winograd"}
    groups = 1 if form in dense else draw(st.integers(2, 5) if form == "shifted" else st.sampled_from([1, 2, 3, 8]))
    per_group = 1 if form == "shifted" else draw(st.sampled_from([1, 2, 6, 20]))
    channels = groups * per_group, groups * draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    images = jnp.asarray(random.standard_normal((draw(st.integers(1, 3)), *size, channels[0])), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((*kernel_size, per_group, channels[1])), jnp.float32)
    return images, kernel, Geometry(strides, padding, dilation, groups)


def value_and_gradients(images, kernel, cotangent, geometry):
    """The slow obvious reference: place by place in the kernel, group by group, in float64."""
    images, kernel, cotangent = (np.asarray(array, np.float64) for array in (images, kernel, cotangent))
    around = np.pad(images, ((0, 0), *geometry.padding, (0, 0)))
    value, around_gradient, kernel_gradient = (np.zeros(array.shape) for array in (cotangent, around, kernel))
    per_group = images.shape[-1] // geometry.groups, kernel.shape[-1] // geometry.groups
    for y, x, group in np.ndindex(*kernel.shape[:2], geometry.groups):
        rows, columns = (
            slice(place * dilation, place * dilation + (size - 1) * stride + 1, stride)
            for place, dilation, size, stride in zip(
                (y, x), geometry.dilation, cotangent.shape[1:3], geometry.strides, strict=True
            )
        )
        cin, cout = (slice(group * count, (group + 1) * count) for count in per_group)
        value[..., cout] += around[:, rows, columns, cin] @ kernel[y, x][:, cout]
        around_gradient[:, rows, columns, cin] += cotangent[..., cout] @ kernel[y, x][:, cout].T
        kernel_gradient[y, x][:, cout] += np.einsum(
            "bhwi,bhwo->io", around[:, rows, columns, cin], cotangent[..., cout]
        )
    (top, _), (left, _) = geometry.padding
    return value, around_gradient[:, top:, left:][:, : images.shape[1], : images.shape[2]], kernel_gradient


def assert_values_and_gradients(form, images, kernel, geometry, relative=1e-5):
    """As the reference has them; differences are relative to the largest value, as sums round to that."""
    shape = jax.eval_shape(functools.partial(form, geometry=geometry), images, kernel)
    cotangent = jnp.asarray(np.random.default_rng(0).standard_normal(shape.shape), shape.dtype)

    @jax.jit
    def of_form(images, kernel, cotangent):
        value, pull = jax.vjp(functools.partial(form, geometry=geometry), images, kernel)
        return value, *pull(cotangent)

    found = of_form(images, kernel, cotangent)
    assert {array.dtype for array in found} == {images.dtype}
    for a, b in zip(found, value_and_gradients(images, kernel, cotangent, geometry), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=relative, atol=relative * (np.abs(b).max() + 1))


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
@settings(max_examples=12)
def test_each_form_has_the_values_and_gradients_of_the_reference(form, data):
    assert_values_and_gradients(FORMS[form], *data.draw(cases(form)))


@given(cases())
@settings(max_examples=12)
def test_the_chosen_form_has_the_values_and_gradients_of_the_reference(case):
    assert_values_and_gradients(convolve, *case)


def test_a_border_as_wide_as_the_kernel():
    """XLA's own gradient reads what lies before the image there (JAX 0.10)."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((3, 1, 1, 1)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((2, 2, 1, 2)), jnp.float32)
    assert_values_and_gradients(plain, images, kernel, Geometry(padding=((2, 0), (1, 1))))


def test_a_wide_pointwise_convolution_of_few_pixels_has_the_values_and_gradients_of_the_reference():
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((1, 7, 7, 512)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((1, 1, 512, 520)), jnp.float32)
    assert_values_and_gradients(convolve, images, kernel, Geometry())


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_sums_are_near_the_reference(form):
    groups = {"blocks": 2, "shifted": 4}.get(form, 1)
    strides = (1, 1) if form == "winograd" else (2, 2)
    random = np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((2, 33, 33, 4)), jnp.bfloat16)
    kernel = jnp.asarray(random.standard_normal((3, 3, 4 // groups, 4)), jnp.bfloat16)
    assert_values_and_gradients(FORMS[form], images, kernel, Geometry(strides, groups=groups), relative=0.02)


def test_choice_by_kind_and_size(monkeypatch):
    same = Geometry(padding=((1, 1), (1, 1)))
    assert cpu_form((1, 56, 56, 64), (3, 3, 64, 64), same) is plain
    assert cpu_form((64, 2, 2, 64), (3, 3, 64, 64), same) is patches
    assert cpu_form((1, 7, 7, 512), (3, 3, 512, 512), same) is patches
    assert cpu_form((1, 56, 56, 64), (1, 1, 64, 64), Geometry()) is patches
    assert cpu_form((8, 14, 14, 256), (3, 3, 256, 256), same) is winograd
    assert cpu_form((1, 14, 14, 256), (3, 3, 256, 256), same) is winograd
    assert cpu_form((1, 14, 14, 64), (3, 3, 64, 64), same) is plain
    assert cpu_form((64, 2, 2, 256), (3, 3, 256, 256), same) is winograd
    assert cpu_form((64, 3, 3, 256), (3, 3, 256, 256), same) is patches
    assert cpu_form((8, 14, 14, 256), (3, 3, 256, 256), same._replace(strides=(2, 2))) is plain_forward
    assert cpu_form((2, 14, 14, 256), (3, 3, 256, 256), same._replace(strides=(2, 2))) is patches
    assert cpu_form((8, 14, 14, 256), (3, 3, 256, 256), Geometry(padding=((3, 3), (1, 1)))) is plain_forward
    assert cpu_form((1, 56, 56, 64), (3, 3, 1, 128), same._replace(groups=64)) is shifted
    assert cpu_form((1, 56, 56, 64), (3, 3, 2, 64), same._replace(groups=32)) is blocks
    monkeypatch.setenv("FLAXNETS_CONV", "plain")
    assert cpu_form((1, 56, 56, 64), (3, 3, 1, 128), same._replace(groups=64)) is plain
    monkeypatch.setenv("FLAXNETS_CONV", "slow")
    with pytest.raises(ConfigError, match="FLAXNETS_CONV cannot be 'slow': set it to fast or plain, or leave it unset"):
        cpu_form((1, 2, 2, 64), (3, 3, 64, 64), same)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_kernel_larger_than_the_image_gives_an_empty_map_and_no_gradient_fails(groups):
    images, kernel = jnp.ones((2, 1, 7, 2)), jnp.ones((4, 3, 2 // groups, 2))
    geometry = Geometry(groups=groups)

    def total(images, kernel):
        output = convolve(images, kernel, geometry)
        assert output.shape == (2, 0, 5, 2)
        return output.sum()

    gradients = jax.eval_shape(jax.grad(total, (0, 1)), images, kernel)
    assert [each.shape for each in gradients] == [images.shape, kernel.shape]


def test_second_derivatives():
    """A gradient penalty differentiates the backward pass."""
    images, kernel = jnp.linspace(-1, 1, 2 * 25 * 2).reshape(2, 5, 5, 2), jnp.linspace(-1, 2, 18).reshape(3, 3, 1, 2)
    geometry = Geometry((2, 2), ((1, 1), (1, 1)), groups=2)

    def penalty(form, kernel):
        return jnp.square(jax.grad(lambda images: jnp.sin(form(images, kernel, geometry)).sum())(images)).sum()

    expected, actual = (jax.jit(jax.grad(functools.partial(penalty, form)))(kernel) for form in (plain, convolve))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2])
def test_dilation_reads_every_other_pixel_and_keeps_the_size(dilation):
    layer = Convolution(1, 1, 3, dilation=dilation, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[0, 2].set(1.0)
    images = jnp.arange(49.0).reshape(1, 7, 7, 1)
    expected = np.zeros((7, 7))
    expected[dilation:, :-dilation] = images[0, :-dilation, dilation:, 0]
    np.testing.assert_array_equal(layer(images)[0, ..., 0], expected)
    same = Convolution(1, 1, 3, dilation=dilation, padding="same", rngs=nnx.Rngs(0))
    same.kernel[...] = layer.kernel[...]
    np.testing.assert_array_equal(same(images)[0, ..., 0], expected)


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


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_other_platforms_get_plain_convolutions(groups):
    """On a GPU or TPU nothing but `conv_general_dilated` is left of it, forward and backward."""
    geometry = Geometry(padding=((1, 1), (1, 1)), groups=groups)
    arguments = jnp.ones((1, 2, 2, 4)), jnp.ones((3, 3, 4 // groups, 4))
    assert cpu_form(*(each.shape for each in arguments), geometry) is not plain
    loss = jax.grad(lambda images, kernel: convolve(images, kernel, geometry).sum(), argnums=(0, 1))

    def text(platform: str) -> str:
        return jax.jit(loss).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()

    def plain_text(platform: str) -> str:
        loss = jax.grad(lambda images, kernel: plain(images, kernel, geometry).sum(), argnums=(0, 1))
        return jax.jit(loss).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()

    assert text("cpu").count("stablehlo.dot_general") > 0 or groups == 2
    for platform in ("tpu", "cuda"):
        operations = [re.findall(r"stablehlo\.\w+", each) for each in (text(platform), plain_text(platform))]
        costly = [[name for name in each if name not in CHEAP] for each in operations]
        assert collections.Counter(costly[0]) == collections.Counter(costly[1])


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
