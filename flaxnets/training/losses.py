"""Losses of logits and labels, each linear in its target, so that a mixture's loss is the mixture of two losses."""

from collections.abc import Callable

import jax
import optax

Loss = Callable[[jax.Array, jax.Array, float], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy [b] of logits [b, classes] and labels [b], in nats.

    The target is 1 - label_smoothing on the label, plus label_smoothing / classes everywhere (Szegedy et al. 2015,
    arXiv:1512.00567, section 7).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Sum over classes of each one's own cross-entropy [b], with the targets of `cross_entropy`, in nats.

    Source: Wightman et al. 2021, arXiv:2110.00476, section 3.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "binary": binary_cross_entropy}
