"""How a network is trained, as settings: the optimiser and the course of its learning rate."""

from typing import Any, Literal, NamedTuple

import pydantic

from flaxnets.part import Duration, Interval, Part

BatchNorm = Literal["per_device", "synchronised", "frozen"]


class Published(NamedTuple):
    """What an optimiser takes where the settings leave it open."""

    peak_lr: float
    beta2: float | None = None
    epsilon: float | None = None


# fmt: off
PUBLISHED = {
    #                    peak_lr   beta2  epsilon
    "sgd":     Published(0.1),                   # Goyal et al. 2017, arXiv:1706.02677, section 2.1
    "rmsprop": Published(0.016,   0.9,   1e-3),  # Tan and Le 2019, arXiv:1905.11946, section 5, and their code
    "adamw":   Published(0.00025, 0.999, 1e-8),  # Touvron et al. 2020 (DeiT), arXiv:2012.12877, table 9
    "lamb":    Published(0.000625, 0.999, 1e-6), # Wightman et al. 2021, arXiv:2110.00476, table 2; You et al. 2019
    "lars":    Published(0.3),                   # Chen et al. 2020 (SimCLR), arXiv:2002.05709, section 2.2
    "lion":    Published(0.000025, 0.99),        # a tenth of AdamW's: Chen et al. 2023, arXiv:2302.06675, section 5
}
# fmt: on


class Optimizer(Part):
    """How parameters follow their gradients."""

    section = "optimizer"

    name: Literal["sgd", "rmsprop", "adamw", "lamb", "lars", "lion"] = "sgd"
    """SGD with Nesterov momentum, RMSProp as in TensorFlow, AdamW (arXiv:1711.05101), LAMB (arXiv:1904.00962), LARS
    (arXiv:1708.03888) or Lion (arXiv:2302.06675)."""
    peak_lr: float | None = pydantic.Field(default=None, gt=0)
    """Highest learning rate, per 256 images of the batch; default: sgd 0.1, rmsprop 0.016, adamw 0.00025, lamb
    0.000625, lars 0.3, lion 0.000025."""
    momentum: float = pydantic.Field(default=0.9, ge=0, lt=1)
    """sgd, rmsprop, lars: share of the last update that goes on."""
    beta1: float = pydantic.Field(default=0.9, ge=0, lt=1)
    """adamw, lamb, lion: share of the average of gradients that goes on."""
    beta2: float | None = pydantic.Field(default=None, ge=0, lt=1)
    """Share of the average of squared gradients that goes on (default: rmsprop 0.9, adamw and lamb 0.999), or of
    lion's slow average of gradients (0.99)."""
    epsilon: float | None = pydantic.Field(default=None, gt=0)
    """Added where a root is divided by; default: rmsprop 0.001, inside the root, adamw 1e-8, lamb 1e-6."""
    weight_decay: float = pydantic.Field(default=5e-4, ge=0)
    """Pull of kernels to 0; biases and batch norm have none. An L2 penalty in sgd, rmsprop and lars; in the others a
    share of the learning rate."""
    decay_depthwise: bool = True
    """Whether depthwise kernels have it too (not in arXiv:1704.04861, section 3.1)."""
    clip_norm: float = pydantic.Field(default=0.0, ge=0)
    """Shrink gradients whose norm over all parameters is larger; 0 for never."""
    clip_adaptive: float = pydantic.Field(default=0.0, ge=0)
    """Shrink the gradient of each unit, but the classifier's, whose norm is larger than this share of the norm of its
    parameters (arXiv:2102.06171: 0.01); 0 for never."""
    layer_decay: float = pydantic.Field(default=1.0, gt=0, le=1)
    """Multiply the learning rate of each block by this once more than that of the block after it; the classifier and
    the head have all of it."""

    def with_published(self) -> "Optimizer":
        """The same, with published values in place of None."""
        published: dict[str, Any] = PUBLISHED[self.name]._asdict()
        return self.model_copy(update={name: v for name, v in published.items() if getattr(self, name) is None})


class Schedule(Part):
    """The course of the learning rate: a linear rise from 0 to the peak, then what `name` says."""

    section = "schedule"

    name: Literal["cosine", "step", "exponential", "polynomial", "constant"] = "cosine"
    """What follows the warm-up: a cosine (arXiv:1608.03983), steps, an exponential, a polynomial, or the peak."""
    warmup: Duration = "2 epochs"
    """The rise from 0, such as `5 epochs`, `500 steps` or `100_000 images`."""
    lowest: float = pydantic.Field(default=0.0, ge=0, le=1)
    """cosine, polynomial: share of the peak at the end."""
    cycles: int = pydantic.Field(default=1, gt=0)
    """cosine: how often it runs, each time from the warm-up on, in equal parts of the run."""
    cycle_decay: float = pydantic.Field(default=1.0, gt=0, le=1)
    """cosine: peak of a cycle as a share of the last one's."""
    decay: float = pydantic.Field(default=0.1, gt=0, le=1)
    """step, exponential: what the rate is multiplied with in each `decay_every`."""
    decay_every: Interval = "30 epochs"
    """step, exponential: counted from the start of the run."""
    power: float = pydantic.Field(default=2.0, gt=0)
    """polynomial: 1 falls in a straight line; 2 is LARS's."""
