"""The whole contract of an architecture plugin: an `Architecture` that builds an `ImageClassifier`."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.errors import ArchitectureError

# The statistics with which nearly every published ImageNet model was trained, for images scaled to [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageClassifier(nnx.Module):
    """A classifier made of four named parts: images [b, h, w, c] float32 -> logits [b, num_classes] float32.

    Because every architecture has the same four parts, whatever works on stages (features, freezing, rates by layer)
    is written once, in flaxnets, for every plugin.

    Attributes:
      stem: images -> first feature map.
      stages: a list of lists of blocks, each block feature map -> feature map; the first block of a stage may stride.
      head: last feature map [b, h', w', c'] -> embedding [b, d].
      classifier: embedding -> logits; None gives a model that returns the embedding.
      stride: pixels of the image a pixel of the last feature map; smaller images are refused.
      rematerialise: set by flaxnets to save memory in training: what is inside a stage is computed again for the
        gradient.
    """

    def __init__(
        self,
        *,
        stem: nnx.Module,
        stages: Sequence[Sequence[nnx.Module]],
        head: nnx.Module,
        classifier: nnx.Module | None,
        stride: int = 1,
    ):
        self.stem = stem
        self.stages = nnx.List([nnx.List(blocks) for blocks in stages])
        self.head = head
        self.classifier = classifier
        self.stride = stride
        self.rematerialise = False

    def features(self, images: jax.Array) -> list[jax.Array]:
        """The feature map after each stage, [b, h_i, w_i, c_i] each, first stage first.

        Raises:
          ArchitectureError: the images are smaller than the network's stride, so that nothing of them would be left.
        """
        if min(images.shape[1:3]) < self.stride:
            height, width = images.shape[1:3]
            raise ArchitectureError(
                f"Images of {height}x{width} pixels are too small for a network of stride {self.stride}: give at least "
                f"{self.stride}x{self.stride}, or shrink the stride (stem='small', where `flaxnets info NAME` has it)."
            )
        maps = []
        x = self.stem(images)
        run = nnx.remat(_run) if self.rematerialise else _run
        for blocks in self.stages:
            x = run(blocks, x)
            maps.append(x)
        return maps

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits [b, num_classes], or the embedding [b, d] where there is no classifier; always float32."""
        x = self.head(self.features(images)[-1])
        if self.classifier is not None:
            x = self.classifier(x)
        return x.astype(jnp.float32)


def _run(blocks: nnx.List, x: jax.Array) -> jax.Array:
    for block in blocks:
        x = block(x)
    return x


def by_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Statistics of images, a number a channel, as they are for so many channels: grey has the mean of the colours'."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


@dataclasses.dataclass(frozen=True)
class Layout:
    """How another library names the tensors of a model, so that its weights can be read and written.

    flaxnets itself turns kernels round and knows PyTorch's words for what a module holds (`weight`, `running_mean`).

    Attributes:
      name: `name(path, model)` -> the module's name there, such as `layer1.0.conv2` for the path
        `("stages", "0", "0", "spatial", "convolution")`. It is asked for every module that holds tensors.
      pointwise: last parts of the names of modules that are 1x1 convolutions there, and linear layers here.
      networks: what that library calls the networks that, with default options, compute the same from these tensors, by
        their names here; the weights of others have the layout, but no network there to load them.
    """

    name: Callable[[tuple[str, ...], ImageClassifier], str]
    pointwise: frozenset[str] = frozenset()
    networks: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What an entry point of the group `flaxnets.architectures` points at.

    `flaxnets list` reads `num_params` and `paper` without importing the plugin, from the source of the line that makes
    the architecture: write them there as literals, or as the name of a constant of the same file.

    Attributes:
      build: `build(num_classes=, in_channels=, dtype=, rngs=, ...)` -> `ImageClassifier`. `num_classes=0` builds it
        without a classifier; `dtype` is the type of the computation, parameters stay float32. What else it takes by
        keyword are options of the user.
      num_params: trainable parameters at 1000 classes and 3 channels, as published.
      paper: where the architecture was published, such as `arXiv:1512.03385`.
      image_size: height and width in pixels of the images of the published result.
      top1: published ImageNet top-1 accuracy in percent, and where it is published.
      layouts: other libraries' names for the tensors, by what the library is called; its source's come first.
      mean: of the images that the published weights expect, a number a channel, images in [0, 1].
      std: standard deviation of these images, likewise.
    """

    build: Callable[..., ImageClassifier]
    num_params: int
    paper: str
    top1: tuple[float, str] | None = None
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def options(self) -> dict[str, Any]:
        """What a user may change, with its default; these are the keywords of `build` that not every plugin has."""
        given = inspect.signature(self.build).parameters.values()
        return {
            parameter.name: parameter.default
            for parameter in given
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.name not in ("num_classes", "in_channels", "dtype", "rngs")
        }
