"""mixup and CutMix: pairs of images of a device's batch become mixtures, inside the training step."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from flaxnets.config import Augmentation
from flaxnets.errors import ConfigError


class Mixed(NamedTuple):
    """Images that each show two labels.

    Attributes:
      images: float32 [b, h, w, c].
      labels, others: int32 [b], the label of each image and that of its partner.
      share: float32 [b], how much of an image is its own; `others` has 1 - share.
    """

    images: jax.Array
    labels: jax.Array
    others: jax.Array
    share: jax.Array

    def shares(self, classes: int) -> jax.Array:
        """How much of each class an image shows: float32 [b, classes], 1 in all."""
        own, other = (jax.nn.one_hot(labels, classes) for labels in (self.labels, self.others))
        return self.share[:, None] * own + (1 - self.share)[:, None] * other

    def dominant(self) -> jax.Array:
        """The label [b] with the larger share: what a mixture is counted as."""
        return jnp.where(self.share >= 0.5, self.labels, self.others)


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mix each image of a batch with its partner, the first with the last, the second with the last but one, ...

    Args:
      mixup: alpha of mixup (Zhang et al. 2017, arXiv:1710.09412): the sum of two images, with a share drawn from
        Beta(alpha, alpha); 0 for none. The paper has .1 to .4 on ImageNet.
      cutmix: alpha of CutMix (Yun et al. 2019, arXiv:1905.04899): a box of the partner pasted into the image, its area
        drawn likewise, its centre anywhere, and what lies outside the image cut off; 0 for none. The paper has 1.
      probability: of mixing at all.
      cutmix_probability: of CutMix, where there are both.
      by: whether all that is drawn once for the `batch`, or for each `pair`.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    cutmix_probability: float = 0.5
    by: Literal["batch", "pair"] = "batch"

    def __call__(self, key: jax.Array, images: jax.Array, labels: jax.Array) -> Mixed:
        """Mix images [b, h, w, c] with labels [b]; `key` decides how. Where b is odd, the middle image stays alone."""
        batch, height, width, _ = images.shape
        place = jnp.arange(batch)
        group = jnp.zeros_like(place) if self.by == "batch" else jnp.minimum(place, place[::-1])
        if_mixed, if_cut, how_much, row, column = jax.random.split(key, 5)

        def drawn(key: jax.Array) -> jax.Array:
            return jax.random.uniform(key, (batch,))[group]

        mixed = drawn(if_mixed) < self.probability
        cut = drawn(if_cut) < (self.cutmix_probability if self.mixup and self.cutmix else float(self.cutmix > 0))
        alpha = jnp.where(cut, self.cutmix, self.mixup)
        share = jax.random.beta(how_much, alpha, alpha)[group]

        inside_rows = _interval(drawn(row), share, height)
        inside_columns = _interval(drawn(column), share, width)
        outside = 1.0 - inside_rows[:, :, None] * inside_columns[:, None, :]  # [b, h, w]
        share = jnp.where(cut, outside.mean((1, 2)), share)  # the area that was pasted, not the one that was drawn
        share = jnp.where(mixed, share, 1.0)
        weights = jnp.where((cut & mixed)[:, None, None], outside, share[:, None, None])[..., None]
        return Mixed(weights * images + (1 - weights) * images[::-1], labels, labels[::-1], share)


def mixing_of(chosen: Augmentation, batch_size: int) -> Mixing | None:
    """The mixing that a configuration asks for, or None.

    Args:
      chosen: the configuration.
      batch_size: images of one device, of which there must be two at least.

    Raises:
      ConfigError: there is nothing to mix with.
    """
    if not (chosen.mixup or chosen.cutmix):
        return None
    if batch_size < 2:
        raise ConfigError(
            f"A device mixes images of its own batch, which is {batch_size} here; use a --data.batch-size of at least "
            "two images a device, or neither --augmentation.mixup nor --augmentation.cutmix."
        )
    return Mixing(chosen.mixup, chosen.cutmix, chosen.mix_probability, chosen.cutmix_probability, chosen.mix_by)


def _interval(centre: jax.Array, share: jax.Array, length: int) -> jax.Array:
    """1 for the pixels of a row or column that lie in the box, else 0: [b, length].

    Args:
      centre: [b], in [0, 1).
      share: [b], how much of the image stays outside the box.
      length: of the row or column, in pixels.
    """
    size = jnp.floor(length * jnp.sqrt(1 - share))
    first = jnp.floor(length * centre) - size // 2
    pixel = jnp.arange(length)
    return ((pixel >= first[:, None]) & (pixel < (first + size)[:, None])).astype(jnp.float32)
