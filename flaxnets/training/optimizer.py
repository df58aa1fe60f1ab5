"""Optimisers by name, all optax: what they clip, decay and scale is decided by a parameter's place and shape."""

from typing import Any

import jax
import optax

from flaxnets.recipe import Optimizer

TRUST_COEFFICIENT = 0.001  # You et al. 2017, arXiv:1708.03888, section 5


def make_optimizer(settings: Optimizer, rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimiser that the settings name, after clipping and before layer-wise rates.

    RMSProp is TensorFlow's: epsilon inside the root, squares that start at 1, the rate inside the momentum.

    Args:
      settings: name and hyper-parameters.
      rate: the learning rate by the number of updates made.
    """
    chosen = settings.with_published()
    beta2: Any = chosen.beta2
    epsilon: Any = chosen.epsilon

    def decayed(params: optax.Params) -> optax.Params:
        return jax.tree.map_with_path(
            lambda path, parameter: (
                parameter.ndim > 1 and (chosen.decay_depthwise or not _is_depthwise(path, parameter))
            ),
            params,
        )

    penalty = optax.add_decayed_weights(chosen.weight_decay, mask=decayed)
    match chosen.name:
        case "sgd":
            core = optax.chain(penalty, optax.sgd(rate, momentum=chosen.momentum, nesterov=True))
        case "rmsprop":
            rmsprop = optax.rmsprop(rate, beta2, epsilon, initial_scale=1.0, momentum=chosen.momentum)
            core = optax.chain(penalty, rmsprop)
        case "adamw":
            core = optax.adamw(rate, chosen.beta1, beta2, epsilon, weight_decay=chosen.weight_decay, mask=decayed)
        case "lamb":  # optax.lamb would scale batch norm's parameters too, which start at 0 and would stay near it
            core = optax.chain(
                optax.scale_by_adam(chosen.beta1, beta2, epsilon),
                penalty,
                optax.masked(optax.scale_by_trust_ratio(), _kernels),
                optax.scale_by_learning_rate(rate),
            )
        case "lars":
            core = optax.lars(
                rate,
                chosen.weight_decay,
                decayed,
                TRUST_COEFFICIENT,
                trust_ratio_mask=_kernels,
                momentum=chosen.momentum,
            )
        case "lion":
            core = optax.lion(rate, chosen.beta1, beta2, weight_decay=chosen.weight_decay, mask=decayed)
    clips = []
    if chosen.clip_norm:
        clips.append(optax.clip_by_global_norm(chosen.clip_norm))
    if chosen.clip_adaptive:
        clips.append(optax.masked(optax.adaptive_grad_clip(chosen.clip_adaptive), _before_classifier))
    rates = [] if chosen.layer_decay == 1 else [_scale_by_layer(chosen.layer_decay)]
    return optax.chain(*clips, core, *rates) if clips or rates else core


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda parameter: parameter.ndim > 1, params)


def _before_classifier(params: optax.Params) -> optax.Params:
    return jax.tree.map_with_path(lambda path, _: path[0].key != "classifier", params)


def _is_depthwise(path: tuple[Any, ...], parameter: jax.Array) -> bool:
    """Whether a kernel [k, k, channels it sees, channels] sees one: but in the stem, that is a grey image."""
    return parameter.ndim == 4 and parameter.shape[2] == 1 and path[0].key == "stages"


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiply a block's updates by `decay`, those of the block before by its square, and so on down to the stem.

    Sources: Clark et al. 2020 (ELECTRA), arXiv:2003.10555; Bao et al. 2021 (BEiT), arXiv:2106.08254.
    """

    def scaled(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        blocks = sorted({block for path, _ in leaves if (block := _block(path))}, reverse=True)
        power: dict[Any, int] = {block: number for number, block in enumerate(blocks, start=1)}
        return jax.tree.map_with_path(lambda path, update: update * decay ** power.get(_block(path), 0), updates)

    return optax.stateless(scaled)


def _block(path: tuple[Any, ...]) -> tuple[int, int] | None:
    """Stage and block of a parameter, the stem before the first; None in head and classifier."""
    if path[0].key == "stem":
        return (-1, 0)
    return (path[1].key, path[2].key) if path[0].key == "stages" else None
