"""Losses beside slow sums."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.training.losses import binary_cross_entropy, cross_entropy


def one_hot(labels, classes: int) -> jax.Array:
    return jax.nn.one_hot(jnp.asarray(labels), classes)


@given(st.integers(1, 5), st.integers(2, 7), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_cross_entropy_equals_the_slow_sum(batch, classes, smoothing, seed):
    random = np.random.default_rng(seed)
    logits, labels = random.standard_normal((batch, classes)) * 5, random.integers(0, classes, batch)
    expected = []
    for row, label in zip(logits, labels, strict=True):
        log_probabilities = row - np.log(np.exp(row).sum())
        target = [(i == label) * (1 - smoothing) + smoothing / classes for i in range(classes)]
        expected.append(-sum(t * p for t, p in zip(target, log_probabilities, strict=True)))
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(logits), one_hot(labels, classes), smoothing), expected, rtol=2e-4, atol=1e-5
    )


@given(st.integers(3, 7), st.floats(0, 1), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_cross_entropy_of_a_mixture_is_the_mixture_of_both_losses(classes, share, smoothing, seed):
    logits = jnp.asarray(np.random.default_rng(seed).standard_normal((1, classes)) * 5)
    one, other = one_hot([0], classes), one_hot([2], classes)
    found = cross_entropy(logits, share * one + (1 - share) * other, smoothing)
    both = cross_entropy(logits, one, smoothing), cross_entropy(logits, other, smoothing)
    np.testing.assert_allclose(found, share * both[0] + (1 - share) * both[1], rtol=2e-4, atol=1e-5)


@given(st.integers(1, 5), st.integers(2, 7), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_binary_cross_entropy_equals_the_slow_sum(batch, classes, smoothing, seed):
    random = np.random.default_rng(seed)
    logits, shares = random.standard_normal((batch, classes)) * 3, random.dirichlet([0.3] * classes, batch)
    expected = np.zeros(batch)
    for row in range(batch):
        for i in range(classes):
            probability = 1 / (1 + np.exp(-logits[row, i]))
            target = (shares[row, i] > 0.2) * (1 - smoothing) + smoothing / classes
            expected[row] -= target * np.log(probability) + (1 - target) * np.log(1 - probability)
    found = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(shares), smoothing)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
