"""Optimisers: each beside a slow one in NumPy, and what is decayed, clipped and slowed by its place."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxnets.recipe import PUBLISHED, Optimizer
from flaxnets.training.optimizer import make_optimizer

RATE = 0.25
SHAPES = {
    "stem": {"kernel": (3, 3, 1, 4)},
    "stages": {
        0: {0: {"depthwise": (3, 3, 1, 4), "scale": (4,)}, 1: {"kernel": (1, 1, 4, 2)}},
        1: {0: {"kernel": (1, 1, 2, 2)}},
    },
    "classifier": {"kernel": (2, 5), "bias": (5,)},
}


def draw(seed: int):
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda node: isinstance(node, tuple))
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in leaves])


def named(tree) -> dict[str, np.ndarray]:
    return {
        "/".join(str(key.key) for key in path): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def run(settings: Optimizer, gradients: list) -> list[dict[str, np.ndarray]]:
    """Updates of each parameter, gradient after gradient."""
    optimizer = make_optimizer(settings, optax.constant_schedule(RATE))
    params = draw(0)
    state, made, update = optimizer.init(params), [], jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        made.append(named(updates))
    return made


def trust(parameter, update, coefficient):
    return coefficient * np.linalg.norm(parameter) / np.linalg.norm(update) if parameter.ndim > 1 else 1.0


def sgd(settings, p, g, m):
    m["v"] = settings.momentum * m.get("v", 0) + g
    return -RATE * (g + settings.momentum * m["v"])


def rmsprop(settings, p, g, m):
    m["square"] = 0.9 * m.get("square", 1.0) + 0.1 * g**2
    m["v"] = settings.momentum * m.get("v", 0) + RATE * g / np.sqrt(m["square"] + 1e-3)
    return -m["v"]


def adam(m, g, epsilon):
    m["t"] = m.get("t", 0) + 1
    m["first"] = 0.9 * m.get("first", 0) + 0.1 * g
    m["second"] = 0.999 * m.get("second", 0) + 0.001 * g**2
    return m["first"] / (1 - 0.9 ** m["t"]) / (np.sqrt(m["second"] / (1 - 0.999 ** m["t"])) + epsilon)


def adamw(settings, p, g, m):
    return -RATE * (adam(m, g, 1e-8) + settings.weight_decay * p * (p.ndim > 1))


def lamb(settings, p, g, m):
    update = adam(m, g, 1e-6) + settings.weight_decay * p * (p.ndim > 1)
    return -RATE * trust(p, update, 1.0) * update


def lars(settings, p, g, m):
    m["v"] = settings.momentum * m.get("v", 0) + RATE * trust(p, g, 0.001) * g
    return -m["v"]


def lion(settings, p, g, m):
    direction = np.sign(0.9 * m.get("slow", 0) + 0.1 * g)
    m["slow"] = 0.99 * m.get("slow", 0) + 0.01 * g
    return -RATE * (direction + settings.weight_decay * p * (p.ndim > 1))


@pytest.mark.parametrize("slow", [sgd, rmsprop, adamw, lamb, lars, lion])
def test_an_optimiser_equals_its_slow_reference(slow):
    settings = Optimizer(name=slow.__name__, weight_decay=0.02, momentum=0.8)
    gradients = [draw(seed) for seed in (1, 2, 3)]
    params, memory = named(draw(0)), {}
    for gradient, found in zip(gradients, run(settings, gradients), strict=True):
        for name, g in named(gradient).items():
            if slow in (sgd, rmsprop, lars) and params[name].ndim > 1:  # an L2 penalty
                g = g + settings.weight_decay * params[name]
            expected = slow(settings, params[name], g, memory.setdefault(name, {}))
            np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=1e-6, err_msg=name)
            params[name] = params[name] + expected


def test_every_optimiser_has_published_values_which_settings_replace():
    assert set(PUBLISHED) == set(Optimizer.model_fields["name"].annotation.__args__)
    assert Optimizer(name="rmsprop", epsilon=1.0).with_published().epsilon == 1.0
    assert Optimizer(name="rmsprop").with_published().beta2 == 0.9
    assert Optimizer().with_published().peak_lr == 0.1


def test_only_kernels_decay_and_depthwise_ones_if_asked():
    nothing = [jax.tree.map(jnp.zeros_like, draw(0))]
    (all_kernels,) = run(Optimizer(weight_decay=0.1), nothing)
    (some,) = run(Optimizer(weight_decay=0.1, decay_depthwise=False), nothing)
    for name, update in all_kernels.items():
        assert (np.abs(update).max() > 0) == (update.ndim > 1), name
        if "depthwise" in name:
            assert np.abs(some[name]).max() == 0
        else:  # the stem's kernel sees one channel of a grey image, and is not depthwise
            np.testing.assert_array_equal(some[name], update)


def test_clipping_by_the_norm_over_all_parameters():
    plain, gradient = Optimizer(momentum=0, weight_decay=0), draw(1)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in named(gradient).values()))
    (free,) = run(plain, [gradient])
    (clipped,) = run(plain.model_copy(update={"clip_norm": 1.0}), [gradient])
    (loose,) = run(plain.model_copy(update={"clip_norm": 2 * float(norm)}), [gradient])
    for name in free:
        np.testing.assert_allclose(clipped[name], free[name] / norm, rtol=1e-5)
        np.testing.assert_allclose(loose[name], free[name], rtol=1e-6)


def test_adaptive_clipping_by_the_norm_of_each_unit():
    share = 0.01
    settings = Optimizer(momentum=0, weight_decay=0, clip_adaptive=share)
    gradient, params = draw(1), named(draw(0))
    (found,) = run(settings, [gradient])
    for name, g in named(gradient).items():
        if not name.startswith("classifier"):
            axes = tuple(range(g.ndim - 1)) if g.ndim > 1 else None
            most = share * np.maximum(np.sqrt((params[name] ** 2).sum(axes, keepdims=True)), 1e-3)
            norm = np.sqrt((g**2).sum(axes, keepdims=True))
            g = np.where(norm > most, g * most / norm, g)
        np.testing.assert_allclose(found[name], -RATE * g, rtol=1e-4, atol=1e-8, err_msg=name)


def test_layer_decay_slows_each_block_more_than_the_one_after_it():
    gradient = draw(1)
    (even,) = run(Optimizer(), [gradient])
    (slowed,) = run(Optimizer(layer_decay=0.5), [gradient])
    expected = {"classifier/": 0, "stages/1/0": 1, "stages/0/1": 2, "stages/0/0": 3, "stem/": 4}
    for name, update in even.items():
        (power,) = [power for prefix, power in expected.items() if name.startswith(prefix)]
        np.testing.assert_allclose(slowed[name], update * 0.5**power, rtol=1e-6, err_msg=name)
