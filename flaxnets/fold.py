"""Models without batch norm: in inference it is a scale and a shift, which the convolution before it can do itself."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from flaxnets.layers import ConvNorm, Convolution
from flaxnets.plugin import ImageClassifier


def fold_batch_norm(model: ImageClassifier) -> ImageClassifier:
    """A model that infers the same without batch norm, by its running averages; `model` itself stays as it is.

    Wherever a `ConvNorm` stands, in any plugin's network, its convolution gets a bias and the norm is gone. Other
    batch norms stay. The result is for inference: it has no batch statistics to train with.

    Source: Jacob et al. 2017, arXiv:1712.05877, section 3.2.

    >>> import flaxnets
    >>> import jax.numpy as jnp
    >>> model = flaxnets.create("resnet18", num_classes=10)
    >>> folded = fold_batch_norm(model)
    >>> jnp.allclose(folded(jnp.ones((1, 32, 32, 3))), model(jnp.ones((1, 32, 32, 3))), rtol=1e-4, atol=1e-5)
    Array(True, dtype=bool)
    """
    folded = nnx.clone(model)
    for _, module in list(nnx.iter_modules(folded)):
        # A plugin's own kind of ConvNorm may compute something else: only what computes the same is folded.
        if isinstance(module, ConvNorm) and type(module).__call__ is ConvNorm.__call__ and module.norm is not None:
            _fold(module.convolution, module.norm)
            module.norm = None
    return folded


def _fold(convolution: Convolution, norm: nnx.BatchNorm) -> None:
    """Let a convolution do what the norm after it does; computed in float64, so that rounding comes once."""
    variables: list[Any] = [norm.scale, norm.bias, norm.mean, norm.var]
    scale, shift, mean, variance = (np.asarray(variable[...], np.float64) for variable in variables)
    factor = scale / np.sqrt(variance + norm.epsilon)
    kernel = np.asarray(convolution.kernel[...], np.float64) * factor
    # jnp.asarray would compile a program for each shape.
    convolution.kernel[...] = jax.device_put(kernel.astype(np.float32))
    before: Any = convolution.bias  # a plugin's own kind of ConvNorm may have one
    if before is not None:
        mean = mean - np.asarray(before[...], np.float64)
    convolution.bias = nnx.data(nnx.Param(jax.device_put((shift - mean * factor).astype(np.float32))))
