"""Losses of logits, by how much of each class an image shows: all of one, or a part of each of two that were mixed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array, float], jax.Array]

VISIBLE = 0.2  # share of an image above which a class counts as present


def cross_entropy(logits: jax.Array, shares: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy [b] of logits [b, classes] and shares [b, classes], which sum to 1, in nats.

    The target is 1 - label_smoothing times the shares, plus label_smoothing / classes everywhere (Szegedy et al. 2015,
    arXiv:1512.00567, section 7).
    """
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(shares, label_smoothing))


def binary_cross_entropy(logits: jax.Array, shares: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Sum over classes of each one's own cross-entropy [b], for logits and shares [b, classes], in nats.

    The target is 1 - label_smoothing for every class that was mixed in, whatever its share, plus label_smoothing /
    classes everywhere (Wightman et al. 2021, arXiv:2110.00476, section 3). A share of a fifth or less does not count,
    as in their code, timm (`--bce-target-thresh 0.2`): it can hardly be seen.
    """
    present = (shares > VISIBLE).astype(jnp.float32)
    targets = optax.smooth_labels(present, label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "binary": binary_cross_entropy}
