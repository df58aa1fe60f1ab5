"""One step of training and one of evaluation: pure functions of one device, with collectives over `data`."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from flaxnets.training import parts
from flaxnets.training.losses import Loss, cross_entropy
from flaxnets.training.mesh import AXIS, mean_over_devices
from flaxnets.training.mixing import Mixed, Mixing
from flaxnets.training.state import ModelDefinition, TrainState

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
MIXING_STREAM = 2**31 - 1  # the model's own random streams are numbered from 0


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
    rate: optax.Schedule,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    loss: Loss = cross_entropy,
    label_smoothing: float = 0.0,
    mixing: Mixing | None = None,
    frozen: Sequence[str] = (),
    accumulate: int = 1,
    average: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The training step of one device: `(state, batch) -> (state, metrics)`.

    `batch` is this device's part: `image` uint8 [b, h, w, c], `label` int32 [b]. Gradients and running averages are
    averaged over the devices. `metrics` are sums over all of them (`count`, `loss`, `correct`), the global norm of
    the mean gradient (`gradient_norm`), the learning rate and the number of steps skipped so far. With `mixing`, each
    device mixes its own images: the loss sees both labels with their shares, and `correct` counts the one with the
    larger share.

    A step whose loss or gradient is not finite on any device changes nothing but the counts of steps.

    Args:
      model, optimizer: the network, and what follows its gradients.
      rate: the learning rate by the number of updates made, for the metrics.
      mean, std: of each channel, images in [0, 1].
      loss, label_smoothing, mixing: what is minimised.
      frozen: parts whose parameters stay; no gradient of them is computed.
      accumulate: number of equal parts of the batch that are computed one after the other, to save memory.
      average: share of the state's averages that goes on, after a start at which it is (1 + n) / (10 + n) in update n,
        as in TensorFlow; unused where the state keeps none.
    """

    def loss_of(
        parameters: dict, state: TrainState, batch_stats: dict, inputs: Mixed, key: jax.Array
    ) -> tuple[jax.Array, tuple[dict, Metrics]]:
        logits, batch_stats = model.train(parts.whole(parameters, state.params), batch_stats, inputs.images, key)
        losses = loss(logits, inputs.shares(logits.shape[-1]), label_smoothing)
        return losses.mean(), (batch_stats, _sums(logits, losses, inputs.dominant(), jnp.ones_like(losses)))

    gradient_of = jax.grad(loss_of, has_aux=True)

    def accumulated(
        parameters: dict, state: TrainState, inputs: Mixed, key: jax.Array
    ) -> tuple[dict, tuple[dict, Metrics]]:
        """As `gradient_of`, part after part: mean gradient, last running averages, sums."""

        def add(carry: tuple[dict, dict], part: tuple[Mixed, jax.Array]) -> tuple[tuple[dict, dict], Metrics]:
            gradients, batch_stats = carry
            more, (batch_stats, sums) = gradient_of(parameters, state, batch_stats, *part)
            return (jax.tree.map(lambda a, b: a + b / accumulate, gradients, more), batch_stats), sums

        start = (jax.tree.map(jnp.zeros_like, parameters), state.batch_stats)
        keys = jax.random.split(key, accumulate)
        (gradients, batch_stats), sums = lax.scan(add, start, (_in_parts(inputs, accumulate), keys))
        return gradients, (batch_stats, jax.tree.map(lambda each: each.sum(0), sums))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = step_key(state.seed, state.step, lax.axis_index(AXIS))
        inputs = network_inputs(batch, key, mean, std, mixing)
        parameters = parts.trained(state.params, frozen)
        if accumulate == 1:
            gradients, (batch_stats, sums) = gradient_of(parameters, state, state.batch_stats, inputs, key)
        else:
            gradients, (batch_stats, sums) = accumulated(parameters, state, inputs, key)
        # Those that stay are the same on all devices, and a mean of three equal numbers may be another by a rounding.
        moving = {} if model.batch_norm == "frozen" else parts.trained(batch_stats, frozen)
        gradients, moving = mean_over_devices((gradients, moving))
        batch_stats = parts.whole(moving, state.batch_stats)
        sums = lax.psum(sums, AXIS)
        norm = _norm(gradients)

        count = state.step - state.skipped  # updates made so far
        old = {"params": state.params, "batch_stats": state.batch_stats, "optimizer": state.optimizer}

        def updated() -> dict[str, Any]:
            updates, optimizer_state = optimizer.update(gradients, state.optimizer, parameters)
            params = parts.whole(jax.tree.map(jnp.add, parameters, updates), state.params)
            new = {"params": params, "batch_stats": batch_stats, "optimizer": optimizer_state}
            if state.average:
                kept = jnp.minimum(average, (1 + count) / (10 + count))
                now = {"params": params, "batch_stats": batch_stats}
                new["average"] = jax.tree.map(lambda a, b: kept * a + (1 - kept) * b, state.average, now)
            return new

        if state.average:
            old["average"] = state.average
        finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(norm)
        new = _where(finite, updated, old)
        skipped = state.skipped + jnp.where(finite, 0, 1)
        metrics = {**sums, "gradient_norm": norm, "learning_rate": rate(count), "skipped": skipped}
        return dataclasses.replace(state, step=state.step + 1, skipped=skipped, **new), metrics

    return train_step


def make_eval_step(
    model: ModelDefinition, *, mean: tuple[float, ...], std: tuple[float, ...], accumulate: int = 1
) -> Callable[[TrainState, Batch], Metrics]:
    """The evaluation step of one device: `(state, batch) -> metrics`.

    As the training step, but examples count by `weight` [b], so that one that only fills up a batch counts nothing.
    In as many parts as the training step: a batch that trains in parts alone might not fit whole into memory here.
    """

    def sums_of(state: TrainState, batch: Batch) -> Metrics:
        logits = model.infer(state.params, state.batch_stats, normalise(batch["image"], mean, std))
        losses = cross_entropy(logits, jax.nn.one_hot(batch["label"], logits.shape[-1]))
        return _sums(logits, losses, batch["label"], batch["weight"])

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        if accumulate == 1:
            sums = sums_of(state, batch)
        else:
            sums = lax.map(lambda part: sums_of(state, part), _in_parts(batch, accumulate))
            sums = jax.tree.map(lambda each: each.sum(0), sums)
        return lax.psum(sums, AXIS)

    return eval_step


def _norm(gradients: Any) -> jax.Array:
    """The norm of all gradients as one vector; all that are vectors join first: each array has loops to compile."""
    leaves = jax.tree.leaves(gradients)
    vectors = [leaf for leaf in leaves if leaf.ndim == 1]
    joined = [jnp.concatenate(vectors)] if vectors else []
    return optax.tree.norm([*joined, *(leaf for leaf in leaves if leaf.ndim != 1)])


def _where(finite: jax.Array, new: Callable[[], Any], old: Any) -> Any:
    """`new()` where `finite`, else `old`.

    On a CPU this is a branch: if each array were chosen for itself, XLA would copy them all first, because each new
    momentum reads the old parameter and each new parameter the old momentum. A GPU would wait for a branch.
    """
    return lax.platform_dependent(
        cpu=lambda: lax.cond(finite, new, lambda: old),
        default=lambda: jax.tree.map(functools.partial(jnp.where, finite), new(), old),
    )


def _in_parts(batch: Any, count: int) -> Any:
    """Arrays [b, ...] -> [count, b / count, ...]."""
    return jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), batch)


def _sums(logits: jax.Array, losses: jax.Array, labels: jax.Array, weight: jax.Array) -> Metrics:
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return {"count": weight.sum(), "loss": weight @ losses, "correct": weight @ correct}
