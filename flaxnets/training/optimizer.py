"""Learning-rate schedule and optimiser, both optax."""

import jax
import optax

from flaxnets.config import Optimizer
from flaxnets.errors import ConfigError


def learning_rate(settings: Optimizer, batch_size: int, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then a cosine to 0; the peak grows with the batch.

    Sources: Goyal et al. 2017, arXiv:1706.02677 (warm-up, linear scaling); Loshchilov and Hutter 2016,
    arXiv:1608.03983 (cosine).

    Raises:
      ConfigError: the warm-up is as long as the run.
    """
    if warmup_steps >= total_steps:
        raise ConfigError(
            f"The warm-up of {warmup_steps} steps leaves nothing of a run of {total_steps}; lower "
            "--optimizer.warmup-epochs, or raise --epochs."
        )
    peak = settings.peak_lr * batch_size / 256
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps)


def sgd(settings: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and an L2 penalty on kernels: parameters of more than one dimension."""

    def kernels(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda parameter: parameter.ndim > 1, params)

    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay, mask=kernels),
        optax.sgd(schedule, momentum=settings.momentum, nesterov=True),
    )
