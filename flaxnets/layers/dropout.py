"""Layers that drop parts of a network at random while it trains; a rate of 0 makes no layer at all."""

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers.checks import require_rate


class StochasticDepth(nnx.Module):
    """Drops a residual branch for some images of the batch while training: [b, ...] -> [b, ...].

    What is left is divided by 1 - `rate`, so that the mean stays. `nnx.view(model, deterministic=True)` turns it off.

    Args:
      rate: probability that an image's branch is dropped.
      rngs: its stream `dropout`, or `default`, gives this layer a stream of its own, as in `nnx.Dropout`.

    Raises:
      ArchitectureError: `rate` is not in [0, 1).

    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        require_rate("stochastic_depth", rate)
        self.rate = rate
        self.deterministic = False
        self.rngs = rngs["dropout"].fork()

    def __call__(self, x: jax.Array) -> jax.Array:
        """Drop whole examples of a residual branch [b, ...]."""
        if self.deterministic:
            return x
        keep = jax.random.bernoulli(self.rngs(), 1 - self.rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), 0)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Used by `nnx.view`: where `deterministic` is True, nothing is dropped."""
        if deterministic is not None:
            self.deterministic = deterministic


def dropout(rate: float, *, rngs: nnx.Rngs) -> nnx.Dropout | None:
    """Dropout of single values; None where `rate` is 0. Raises ArchitectureError unless `rate` is in [0, 1)."""
    require_rate("dropout", rate)
    return nnx.Dropout(rate, rngs=rngs) if rate else None
