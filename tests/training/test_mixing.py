"""mixup and CutMix against slow references, and the loss of what they make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx
from flaxnets_tiny import tiny_net
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.config import Augmentation
from flaxnets.errors import ConfigError
from flaxnets.recipe import Optimizer
from flaxnets.training import mesh as meshes
from flaxnets.training.mixing import Mixing, mixing_of
from flaxnets.training.optimizer import make_optimizer
from flaxnets.training.state import initial_state, split_model
from flaxnets.training.step import make_train_step, network_inputs, step_key

STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
SEEDS = st.integers(0, 2**31 - 1)
CASES = st.sampled_from([(8, "batch"), (5, "pair")])  # images in the batch, and what is drawn once


def batch_of(size, seed=0, height=9, width=7):
    random = np.random.default_rng(seed)
    images = random.standard_normal((size, height, width, 3)).astype(np.float32)
    return images, random.integers(0, 10, size).astype(np.int32)


jitted = jax.jit(lambda mixing, key, images, labels: mixing(key, images, labels), static_argnums=0)


def mix(mixing, seed, images, labels):
    return jax.device_get(jitted(mixing, jax.random.key(seed), images, labels))


def assert_pairs(mixed, labels, by):
    """Partners are the first and the last, and so on, and both have the same share."""
    np.testing.assert_array_equal(mixed.labels, labels)
    np.testing.assert_array_equal(mixed.others, labels[::-1])
    np.testing.assert_array_equal(mixed.share, mixed.share[::-1])
    assert ((mixed.share >= 0) & (mixed.share <= 1)).all()
    if by == "batch":
        assert len(set(mixed.share.tolist())) == 1


@given(CASES, SEEDS)
@settings(max_examples=25)
def test_mixup_is_the_weighted_sum_of_two_images(case, seed):
    size, by = case
    images, labels = batch_of(size, seed)
    mixed = mix(Mixing(mixup=0.4, by=by), seed, images, labels)
    assert_pairs(mixed, labels, by)
    for place in range(size):
        share, partner = float(mixed.share[place]), images[size - 1 - place]
        np.testing.assert_allclose(mixed.images[place], share * images[place] + (1 - share) * partner, atol=1e-5)


@given(CASES, SEEDS)
@settings(max_examples=25)
def test_cutmix_pastes_a_box_whose_area_is_the_partners_share(case, seed):
    size, by = case
    images, labels = batch_of(size, seed)
    mixed = mix(Mixing(cutmix=1.0, by=by), seed, images, labels)
    assert_pairs(mixed, labels, by)
    for place in range(size):
        own, partner, result = images[place], images[size - 1 - place], mixed.images[place]
        if size - 1 - place == place:  # alone in the middle
            np.testing.assert_array_equal(result, own)
            continue
        pasted = (result != own).any(-1)
        np.testing.assert_array_equal(result[pasted], partner[pasted])
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)
        if len(rows):
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mixed.share[place] == pytest.approx(1 - pasted.mean(), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_follow_the_beta_distribution(alpha):
    images, labels = batch_of(4000, height=1, width=1)
    shares = mix(Mixing(mixup=alpha, by="pair"), 0, images, labels).share[:2000]
    expected = np.random.default_rng(0).beta(alpha, alpha, 2000)
    # Rounded, because float32 has far fewer numbers near 1 than near 0.
    assert scipy.stats.ks_2samp(shares.round(3), expected.round(3)).pvalue > 0.01


def test_areas_of_cutmix_are_those_of_the_paper():
    images, labels = batch_of(4000, height=24, width=32)
    shares = mix(Mixing(cutmix=1.0, by="pair"), 0, images, labels).share[:2000]
    random, expected = np.random.default_rng(0), []
    for _ in range(2000):  # section 3.1: centre and area are even, what lies outside is cut off
        cut = np.sqrt(1 - random.beta(1, 1))
        sides = []
        for length in (24, 32):
            size, centre = int(length * cut), int(random.integers(length))
            first = centre - size // 2
            sides.append(sum(first <= pixel < first + size for pixel in range(length)))
        expected.append(1 - sides[0] * sides[1] / (24 * 32))
    assert scipy.stats.ks_2samp(shares, expected).pvalue > 0.01


def test_probabilities_choose_between_mixup_cutmix_and_neither():
    images, labels = batch_of(2000, height=8, width=8)
    mixing = Mixing(mixup=1.0, cutmix=1.0, probability=0.6, cutmix_probability=0.25, by="pair")
    mixed = mix(mixing, 0, images, labels)
    untouched = (mixed.images == images).all((1, 2, 3))
    either = ((mixed.images == images) | (mixed.images == images[::-1])).all((1, 2, 3)) & ~untouched
    assert untouched.mean() == pytest.approx(0.4, abs=0.06)
    assert either.mean() == pytest.approx(0.6 * 0.25, abs=0.04)
    np.testing.assert_array_equal(mixed.share[untouched], 1)


def test_one_draw_serves_a_batch_and_steps_differ():
    images, labels = batch_of(6)
    mixing = Mixing(mixup=1.0)
    shares = {float(mix(mixing, seed, images, labels).share[0]) for seed in range(5)}
    assert len(shares) == 5
    again, twice = (mix(mixing, 3, images, labels).images for _ in range(2))
    np.testing.assert_array_equal(again, twice)


@pytest.mark.parametrize("mixing", [Mixing(0.3, 1.0, by="pair"), None], ids=["both", "neither"])
def test_the_step_learns_both_labels_by_their_shares_on_every_device(mixing):
    """Eight devices against a slow loop: dense targets of mass 1, smoothed, and a batch of its own each."""
    definition, params, batch_stats = split_model(tiny_net.build(num_classes=10, rngs=nnx.Rngs(0)))
    rate = optax.constant_schedule(0.1)
    optimizer = make_optimizer(Optimizer(), rate)
    step = make_train_step(definition, optimizer, rate=rate, **STATISTICS, label_smoothing=0.1, mixing=mixing)
    state = initial_state(params, batch_stats, optimizer, seed=5)
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    batch = {"image": images, "label": np.arange(32, dtype=np.int32) % 10}
    devices = meshes.data_mesh(32)
    _, metrics = meshes.data_parallel(step, devices)(jax.device_put(state, meshes.copied(devices)), batch)

    inputs_of = jax.jit(functools.partial(network_inputs, **STATISTICS, mixing=mixing))
    logits_of = jax.jit(lambda images, key: definition.train(params, batch_stats, images, key)[0])
    expected, correct, shares = 0.0, 0, []
    for device in range(8):
        own = {name: array[4 * device : 4 * device + 4] for name, array in batch.items()}
        key = step_key(state.seed, state.step, jnp.int32(device))
        inputs = jax.device_get(inputs_of(own, key))
        log_probabilities = np.asarray(jax.nn.log_softmax(logits_of(inputs.images, key)), float)
        for place in range(4):
            target = np.full(10, 0.1 / 10)
            target[inputs.labels[place]] += 0.9 * inputs.share[place]
            target[inputs.others[place]] += 0.9 * (1 - inputs.share[place])
            assert target.sum() == pytest.approx(1, abs=1e-6)
            expected -= target @ log_probabilities[place]
            larger = inputs.labels if inputs.share[place] >= 0.5 else inputs.others
            correct += int(log_probabilities[place].argmax() == larger[place])
            shares.append(float(inputs.share[place]))
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["correct"]) == correct
    assert (len(set(shares)) > 1) == (mixing is not None)  # devices draw on their own


def test_a_configuration_without_alpha_mixes_nothing():
    assert mixing_of(Augmentation(mix_probability=1.0), 1) is None
    chosen = Augmentation(mixup=0.2, cutmix=1, mix_probability=0.9, cutmix_probability=0.3, mix_by="pair")
    assert mixing_of(chosen, 2) == Mixing(0.2, 1.0, 0.9, 0.3, "pair")


def test_a_single_image_has_nothing_to_mix_with():
    with pytest.raises(ConfigError) as error:
        mixing_of(Augmentation(cutmix=1.0), 1)
    assert str(error.value) == (
        "A device mixes images of its own batch, which is 1 here; use a --data.batch-size of at least two images a "
        "device, or neither --augmentation.mixup nor --augmentation.cutmix."
    )
