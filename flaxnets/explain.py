"""Where a model looks: Grad-CAM for every architecture, and the weights of its own attention layers."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.errors import ArchitectureError
from flaxnets.hooks import Hook, hooked
from flaxnets.layers import Attention
from flaxnets.plugin import ImageClassifier


class Weighing(NamedTuple):
    """What an attention layer did to a batch of images.

    Attributes:
      weights: [b, 1, 1, c] of channels, or [b, h, w, 1] of pixels.
      heat: [b, height, width] of the images, at least 0: the weights of the pixels; for channels, how strongly those
        of large weight fire there, which is the mean over the channels of `|feature map| * weight`.
    """

    weights: jax.Array
    heat: jax.Array


def grad_cam(
    model: ImageClassifier, images: jax.Array, classes: jax.Array | None = None, stage: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Which parts of each image speak for a class.

    The channels of a feature map are added up, each weighted by the mean gradient of the class's logit with respect to
    it; what speaks against the class is dropped, and the sum is enlarged to the size of the image.

    Args:
      model: in inference mode, with a classifier.
      images: [b, h, w, c], normalised.
      classes: [b], the class to explain of each image; if None the one with the largest logit.
      stage: whose output is the feature map, from 0; if None the last one, or where the images are so small that its
        map has less than 4x4 pixels, the last one that has more.

    Returns:
      Maps [b, h, w] from 0 to 1, the strongest part of each image, or all 0 where nothing speaks for the class; and the
      logits [b, num_classes].

    Raises:
      ArchitectureError: there is no such stage, or the model has no classifier.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2.
    """
    count = len(model.stages)
    if stage is not None and not 0 <= stage < count:
        stages = ", ".join(map(str, range(count)))
        raise ArchitectureError(f"There is no stage {stage}; choose one of the network's stages: {stages}.")
    definition, state = nnx.split(model)
    return _grad_cam(definition, state, images, classes, stage)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _grad_cam(
    definition: nnx.GraphDef[ImageClassifier],
    state: Any,
    images: jax.Array,
    classes: jax.Array | None,
    stage: int | None,
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(definition, state)
    classifier = model.classifier
    if classifier is None:
        raise ArchitectureError("A model without a classifier has no class to explain; give one that has classes.")

    maps = model.features(images)
    chosen = max((i for i, each in enumerate(maps) if min(each.shape[1:3]) >= 4), default=0) if stage is None else stage
    features = maps[chosen].astype(jnp.float32)

    def logits_of(x: jax.Array) -> jax.Array:
        for blocks in model.stages[chosen + 1 :]:
            for block in blocks:
                x = block(x)
        return classifier(model.head(x)).astype(jnp.float32)

    logits, gradient = jax.vjp(logits_of, features)
    classes = logits.argmax(-1) if classes is None else classes
    channel_weights = gradient(jax.nn.one_hot(classes, logits.shape[-1]))[0].mean((1, 2), keepdims=True)
    heat = jax.nn.relu((features * channel_weights).sum(-1))
    heat = jax.image.resize(heat, images.shape[:3], "linear")
    strongest = heat.max((1, 2), keepdims=True)
    return jnp.where(strongest > 0, heat / jnp.where(strongest > 0, strongest, 1), 0), logits


def attention(model: ImageClassifier, images: jax.Array) -> dict[str, Weighing]:
    """What each attention layer (`flaxnets.layers.Attention`) of a model does, by its path, in the order of calls.

    Args:
      model: in inference mode.
      images: [b, h, w, c], normalised.
    """
    definition, state = nnx.split(model)
    paths = []

    def run(state: Any, images: jax.Array) -> list[Weighing]:
        copy = nnx.merge(definition, state)
        weighings = []

        def watch(path: tuple, layer: Attention) -> Hook:
            def hook(call: Hook, x: jax.Array) -> jax.Array:
                weights = layer.weights(x)
                heat = weights[..., 0] if weights.shape[-1] == 1 else jnp.abs(x * weights).mean(-1)
                paths.append(".".join(map(str, path)))
                weighings.append(Weighing(weights, jax.image.resize(heat, images.shape[:3], "linear")))
                return call(x)

            return hook

        layers = [(path, module) for path, module in nnx.iter_modules(copy) if isinstance(module, Attention)]
        with hooked({layer: watch(path, layer) for path, layer in layers}):
            copy(images)
        return weighings

    found = jax.jit(run)(state, images)
    return dict(zip(paths, found, strict=True))
