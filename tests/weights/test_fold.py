"""Folding batch norm into convolutions changes nothing but the number of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden import NAMES, abstract, checkpoint, images, infer

import flaxnets
from flaxnets import fold_batch_norm, registry
from flaxnets.layers import ConvNorm, Convolution
from flaxnets.plugin import ImageClassifier
from flaxnets.weights.layouts import slots


def norms(model: nnx.Module) -> list[nnx.BatchNorm]:
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)]


@pytest.mark.parametrize("name", NAMES)
def test_every_norm_follows_a_convolution_that_can_take_it_over(name):
    units = [module for _, module in nnx.iter_modules(abstract(name)) if type(module) is ConvNorm]
    assert len(units) == len(norms(abstract(name)))


@pytest.mark.parametrize("name", ["resnet50d", "cbam_resnet18", "mobilenet_v1_025", "mobilenet_v3_small_minimal"])
def test_a_folded_model_infers_the_same_without_batch_norm(name):
    layout = registry.get(name).layouts["attention-module" if name.startswith("cbam") else "timm"]
    shapes = {slot.name: slot.shape for slot in slots(abstract(name), layout)}
    model = flaxnets.create(name, weights=checkpoint(shapes))
    before = [np.array(value) for value in jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))]
    folded = fold_batch_norm(model)

    assert not norms(folded)
    assert not jax.tree.leaves(nnx.state(folded, nnx.BatchStat))
    after = jax.tree.leaves(nnx.state(model, nnx.Not(nnx.RngState)))
    assert all(np.array_equal(*values) for values in zip(before, after, strict=True))

    logits = infer(model, images(128, 97))
    assert np.abs(infer(folded, images(128, 97)) - logits).max() < 1e-4 * np.abs(logits).max()


class Normalised(nnx.Module):
    """A foreign block: a norm in a ConvNorm, one of its own, and ConvNorms of its own kind."""

    def __init__(self, rngs: nnx.Rngs):
        self.unit = ConvNorm(3, 4, rngs=rngs)
        self.own = nnx.BatchNorm(4, rngs=rngs)
        self.other = Doubled(4, 4, rngs=rngs)
        self.biased = Biased(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.other(self.own(self.biased(self.unit(x))))


class Doubled(ConvNorm):
    def __call__(self, x):
        return self.norm(2 * self.convolution(x))


class Biased(ConvNorm):
    def __init__(self, cin, cout, *, rngs):
        super().__init__(cin, cout, rngs=rngs)
        self.convolution = Convolution(cin, cout, use_bias=True, rngs=rngs)
        self.convolution.bias[...] = jnp.arange(float(cout))
        self.norm.mean[...] = jnp.linspace(-1, 1, cout)
        self.norm.var[...] = jnp.linspace(0.5, 2, cout)


def test_only_what_computes_a_convolution_and_its_norm_is_folded():
    model = ImageClassifier(
        stem=Normalised(nnx.Rngs(0)), stages=[], head=nnx.Linear(4, 2, rngs=nnx.Rngs(0)), classifier=None
    )
    model = nnx.view(model, use_running_average=True)
    folded = fold_batch_norm(model)
    assert len(norms(model)) == 4
    assert len(norms(folded)) == 2
    x = jnp.asarray(images(8, 8))
    np.testing.assert_allclose(folded.stem(x), model.stem(x), rtol=1e-4, atol=1e-5)  # type: ignore[operator]
