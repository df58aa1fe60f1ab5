"""One step of training and one of evaluation: pure functions of one device, with collectives over `data`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from flaxnets.training.mesh import AXIS
from flaxnets.training.mixing import Mixed, Mixing
from flaxnets.training.state import ModelDefinition, TrainState

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
MIXING_STREAM = 2**31 - 1  # the model's own random streams are numbered from 0


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy [b] of logits [b, classes] and labels [b], in nats.

    The target is 1 - label_smoothing on the label, plus label_smoothing / classes everywhere (Szegedy et al. 2015,
    arXiv:1512.00567, section 7).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 images [b, h, w, c] -> float32, with each channel's mean subtracted and divided by its std (of [0, 1])."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def step_key(seed: jax.Array, step: jax.Array, device: jax.Array) -> jax.Array:
    """The randomness of a step on a device."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), device)


def network_inputs(
    batch: Batch, key: jax.Array, mean: tuple[float, ...], std: tuple[float, ...], mixing: Mixing | None
) -> Mixed:
    """What the network is trained on: a device's batch, normalised and mixed; `key` is that of the step."""
    images, labels = normalise(batch["image"], mean, std), batch["label"]
    if mixing is None:
        return Mixed(images, labels, labels, jnp.ones(labels.shape))
    return mixing(jax.random.fold_in(key, MIXING_STREAM), images, labels)


def make_train_step(
    model: ModelDefinition,
    optimizer: optax.GradientTransformation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float = 0.0,
    mixing: Mixing | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The training step of one device: `(state, batch) -> (state, metrics)`.

    `batch` is this device's part: `image` uint8 [b, h, w, c], `label` int32 [b]. Gradients and running averages are
    averaged over the devices. `metrics` are sums over all of them (`count`, `loss`, `correct`) and the global norm of
    the mean gradient (`gradient_norm`). With `mixing`, each device mixes its own images: the loss is that of both
    labels by their shares, and `correct` counts the one with the larger share.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = step_key(state.seed, state.step, lax.axis_index(AXIS))
        inputs = network_inputs(batch, key, mean, std, mixing)

        def loss_of(params: dict) -> tuple[jax.Array, tuple[dict, Metrics]]:
            logits, batch_stats = model.train(params, state.batch_stats, inputs.images, key)
            losses = cross_entropy(logits, inputs.labels, label_smoothing)
            if mixing:  # cross-entropy is linear in its target
                other_losses = cross_entropy(logits, inputs.others, label_smoothing)
                losses = inputs.share * losses + (1 - inputs.share) * other_losses
            return losses.mean(), (batch_stats, _sums(logits, losses, inputs.dominant(), jnp.ones_like(losses)))

        gradients, (batch_stats, sums) = jax.grad(loss_of, has_aux=True)(state.params)
        gradients, batch_stats = lax.pmean((gradients, batch_stats), AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        new_state = TrainState(
            step=state.step + 1,
            seed=state.seed,
            params=jax.tree.map(jnp.add, state.params, updates),
            batch_stats=batch_stats,
            optimizer=optimizer_state,
        )
        return new_state, {**lax.psum(sums, AXIS), "gradient_norm": optax.tree.norm(gradients)}

    return train_step


def make_eval_step(
    model: ModelDefinition, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[TrainState, Batch], Metrics]:
    """The evaluation step of one device: `(state, batch) -> metrics`.

    As the training step, but examples count by `weight` [b], so that one that only fills up a batch counts nothing.
    """

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        logits = model.infer(state.params, state.batch_stats, normalise(batch["image"], mean, std))
        losses = cross_entropy(logits, batch["label"])
        return lax.psum(_sums(logits, losses, batch["label"], batch["weight"]), AXIS)

    return eval_step


def _sums(logits: jax.Array, losses: jax.Array, labels: jax.Array, weight: jax.Array) -> Metrics:
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return {"count": weight.sum(), "loss": weight @ losses, "correct": weight @ correct}
