"""Grad-CAM finds the part of an image that decides its class, and attention layers show what they multiply by."""

import flaxnets_tiny
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flaxnets import explain, models
from flaxnets.errors import ArchitectureError
from flaxnets.layers import CBAM, ConvNorm, GlobalMean, SqueezeExcite
from flaxnets.plugin import ImageClassifier
from flaxnets.training.state import split_model

CORNERS = [(0, 0), (0, 24), (24, 0), (24, 24)]


def patches(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy images with a patch of 8x8 pixels in some corner, its colour the class; and where the patch is."""
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.3, (count, 32, 32, 3)).astype(np.float32)
    labels = random.integers(0, 3, count)
    where = np.zeros((count, 32, 32), bool)
    for index, label in enumerate(labels):
        y, x = CORNERS[random.integers(4)]
        images[index, y : y + 8, x : x + 8, label] += 1
        where[index, y : y + 8, x : x + 8] = True
    return images, labels, where


@pytest.fixture(scope="module")
def trained() -> ImageClassifier:
    """A small network that tells the patches apart."""
    rngs = nnx.Rngs(0)
    model = ImageClassifier(
        stem=ConvNorm(3, 8, 3, rngs=rngs),
        stages=[[ConvNorm(8, 16, 3, 2, rngs=rngs)], [ConvNorm(16, 16, 3, 2, rngs=rngs)]],
        head=GlobalMean(),
        classifier=nnx.Linear(16, 3, rngs=rngs),
        stride=4,
    )
    definition, params, batch_stats = split_model(model)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, batch_stats, state, images, labels):
        def loss(params):
            logits, new = definition.train(params, batch_stats, images, jax.random.key(0))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

        gradients, batch_stats = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), batch_stats, state

    carry = (params, batch_stats, optimizer.init(params))
    for number in range(150):
        carry = step(*carry, *patches(32, number)[:2])
    nnx.update(model, *carry[:2])
    return models.in_mode(model, training=False)


@pytest.mark.parametrize("stage", [0, 1, None])
def test_the_map_lies_where_the_class_is_decided(trained, stage):
    images, labels, where = patches(64, 1000)
    maps, logits = map(np.asarray, explain.grad_cam(trained, images, labels, stage))
    np.testing.assert_allclose(logits, trained(images), rtol=1e-4, atol=1e-4)
    assert (logits.argmax(-1) == labels).mean() > 0.95
    assert maps.shape == (64, 32, 32)
    assert maps.min() >= 0
    assert maps.max() <= 1 + 1e-6
    inside = (maps * where).sum((1, 2)) / maps.sum((1, 2))  # the patch covers 6 % of the image
    assert np.median(inside) > 0.6
    hottest = maps.reshape(64, -1).argmax(-1)
    assert where.reshape(64, -1)[np.arange(64), hottest].mean() > 0.95


def test_another_class_is_not_seen_in_the_patch(trained):
    images, labels, where = patches(64, 1001)
    maps = np.asarray(explain.grad_cam(trained, images, (labels + 1) % 3)[0])
    inside = (maps * where).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-9)
    assert np.median(inside) < 0.2


def test_behind_a_mean_and_a_linear_layer_it_is_class_activation_mapping(trained):
    """Zhou et al. 2015, arXiv:1512.04150: the weights of the classifier, applied at each pixel."""
    images, labels, _ = patches(5, 1002)
    features = np.asarray(trained.features(images)[-1])
    kernel = np.asarray(trained.classifier.kernel[...])
    maps = np.asarray(explain.grad_cam(trained, images, labels)[0])
    for index, label in enumerate(labels):
        expected = np.zeros(features.shape[1:3])
        for y, x in np.ndindex(expected.shape):
            expected[y, x] = max(0, sum(features[index, y, x, c] * kernel[c, label] for c in range(16)))
        # The middle of each group of 4x4 pixels is the mean of its inner four.
        groups = maps[index].reshape(8, 4, 8, 4)[:, 1:3, :, 1:3].mean((1, 3))[1:-1, 1:-1]
        smooth = np.asarray(jax.image.resize(expected, (32, 32), "linear"))
        smooth_groups = (smooth / smooth.max()).reshape(8, 4, 8, 4)[:, 1:3, :, 1:3].mean((1, 3))[1:-1, 1:-1]
        np.testing.assert_allclose(groups, smooth_groups, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cbam_resnet18", {"stem": "small", "width": 0.125}),
        ("mobilenet_v2", {"width": 0.35}),
        ("mobilenet_v3_small", {"width": 0.5}),
    ],
)
def test_the_gradient_passes_all_stages_of_an_architecture(name, options):
    """By shapes alone, computing in half precision."""
    model = models.abstract(name, num_classes=4, dtype=jnp.bfloat16, **options)
    images = jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32)
    maps, logits = jax.eval_shape(lambda images: explain.grad_cam(model, images, stage=0), images)
    assert logits.shape == (2, 4)
    assert maps.shape == (2, 64, 48)
    assert maps.dtype == jnp.float32


def test_the_predicted_class_is_explained_where_none_is_given(trained):
    images, _, _ = patches(8, 1004)
    maps, logits = explain.grad_cam(trained, images)
    np.testing.assert_array_equal(maps, explain.grad_cam(trained, images, logits.argmax(-1))[0])


def test_of_small_images_the_last_stage_with_a_map_is_weighed(trained):
    images, labels, _ = patches(2, 1005)
    small = images[:, 9:23, 9:23]  # 14 pixels: 7 after the first stage, 4 after the second
    tiny = images[:, 10:22, 10:22]  # 12 pixels: 6 and 3
    for given, stage in ((small, 1), (tiny, 0)):
        np.testing.assert_array_equal(
            explain.grad_cam(trained, given, labels)[0], explain.grad_cam(trained, given, labels, stage)[0]
        )


def test_a_class_for_which_nothing_speaks_has_an_empty_map(trained):
    images, labels, _ = patches(2, 1003)
    blank = nnx.clone(trained)
    blank.classifier.kernel[...] = jnp.zeros((16, 3))
    assert not np.asarray(explain.grad_cam(blank, images, labels)[0]).any()


def test_a_foreign_plugin_is_explained_and_has_no_attention():
    model = nnx.eval_shape(lambda: flaxnets_tiny.tiny_net.build(num_classes=4, rngs=nnx.Rngs(0)))
    model = models.in_mode(model, training=False)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(lambda x: explain.grad_cam(model, x), images)[0].shape == (2, 32, 32)
    assert jax.eval_shape(lambda x: explain.attention(model, x), images) == {}


def test_attention_shows_what_the_layers_multiply_by():
    rngs = nnx.Rngs(0)
    stages = [[ConvNorm(3, 8, 3, 2, rngs=rngs), SqueezeExcite(8, rngs=rngs)], [CBAM(8, spatial_norm=False, rngs=rngs)]]
    model = ImageClassifier(stem=lambda x: x, stages=stages, head=GlobalMean(), classifier=nnx.Linear(8, 2, rngs=rngs))
    model = models.in_mode(model, training=False)
    images = jnp.asarray(patches(2, 0)[0])
    logits = model(images)

    found = explain.attention(model, images)
    assert list(found) == ["stages.0.1", "stages.1.0.channel", "stages.1.0.spatial"]
    x = model.stages[0][0](images)
    excite, cbam = model.stages[0][1], model.stages[1][0]
    for layer, (weights, heat) in zip((excite, cbam.channel, cbam.spatial), found.values(), strict=True):
        y = layer(x)
        np.testing.assert_allclose(x * weights, y, rtol=1e-4, atol=1e-5)
        expected = jnp.abs(y).mean(-1) if layer is not cbam.spatial else weights[..., 0]
        np.testing.assert_allclose(heat, jax.image.resize(expected, (2, 32, 32), "linear"), rtol=1e-4, atol=1e-5)
        x = y
    np.testing.assert_array_equal(model(images), logits)  # the model itself was left as it is


@pytest.mark.parametrize(
    ("stage", "message"), [(2, "no stage 2; choose one of the network's stages: 0, 1."), (-1, "no stage -1; choose")]
)
def test_an_unknown_stage_lists_the_stages(trained, stage, message):
    with pytest.raises(ArchitectureError, match=message):
        explain.grad_cam(trained, jnp.zeros((1, 32, 32, 3)), jnp.array([0]), stage)


def test_a_model_without_classifier_has_nothing_to_explain():
    model = models.abstract("resnet18", num_classes=0)
    with pytest.raises(ArchitectureError, match="give one that has classes"):
        explain.grad_cam(model, jnp.zeros((1, 32, 32, 3)), jnp.array([0]))
