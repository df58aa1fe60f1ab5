"""Every registered name: its figures, its shapes, its options; with shapes only, so that nothing is compiled."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import models, registry
from flaxnets.errors import ArchitectureError
from flaxnets.layers import Convolution
from flaxnets.testing import check_behaviour, check_structure
from flaxnets.training.state import split_model

GOLDEN = json.loads((Path(__file__).parent / "golden" / "architectures.json").read_text())

# The deeper and the narrower or wider ones have the same blocks; figures are checked of all.
DEEPER = ("34", "101", "152", "101_2", "101_32x8d")
OF_OTHER_WIDTH = ("_025", "_035", "_050", "_075", "_140")
OF_EACH_KIND = [name for name in GOLDEN if not name.endswith((*DEEPER, *OF_OTHER_WIDTH))]


def abstract(name: str, *arguments, **options) -> Any:
    return models.abstract(name, *arguments, **options)


def count(model, kind: type[nnx.Variable] = nnx.Param) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, kind)))


def shapes(model, size: int | tuple[int, int], channels: int = 3) -> list[tuple[int, ...]]:
    """Of the feature maps and the output, for two images."""
    graph, state = nnx.split(model)

    def run(state, images):
        merged = nnx.merge(graph, state)
        maps = merged.features(images)
        embedding = merged.head(maps[-1])
        return *maps, merged.classifier(embedding) if merged.classifier else embedding

    height, width = size if isinstance(size, tuple) else (size, size)
    outputs = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32))
    return [output.shape for output in outputs]


def test_the_names_are_those_of_the_golden_figures():
    ours = {entry.name for entry in registry.available() if entry.distribution == "flaxnets"}
    assert ours == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_figures_are_exact(name):
    summary = flaxnets.summary(name, 224)
    golden = GOLDEN[name]
    assert (summary.params, summary.batch_stats, summary.macs) == (
        golden["params"],
        golden["batch_stats"],
        golden["macs_224"],
    )
    assert registry.find(name).published()["num_params"] == registry.get(name).num_params == golden["params"]


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_every_option_of_size_gives_a_working_network(name):
    model = abstract(name, 7, 5, width=0.6, stem="small", padding="same")
    *maps, logits = shapes(model, (33, 47), channels=5)
    assert logits == (2, 7)
    assert maps[-1][1:3] == tuple(math.ceil(side / model.stride) for side in (33, 47))


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_the_structure_is_what_every_plugin_author_checks(name):
    check_structure(registry.get(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1_025", {}),
        ("mobilenet_v3_small", {"width": 0.35}),
        ("cbam_resnet18", {"width": 0.125}),
        ("resnet50d", {"width": 0.125, "stem": "small"}),
    ],
)
def test_the_behaviour_is_what_every_plugin_author_checks(name, options):
    """Narrow ones, of each kind of block."""
    check_behaviour(registry.get(name), image_size=32, **options)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_strides_grow_from_stage_to_stage_up_to_the_networks(name):
    model = abstract(name, num_classes=0)
    *maps, embedding = shapes(model, 224)
    assert len(maps) == len(model.stages)
    assert [224 // size for _, size, _, _ in maps] == sorted(224 // size for _, size, _, _ in maps)
    assert 224 // maps[-1][1] == model.stride == 32
    assert len(embedding) == 2


def test_feature_maps_of_resnet18():
    assert shapes(abstract("resnet18"), 224)[:-1] == [
        (2, 56, 56, 64),
        (2, 28, 28, 128),
        (2, 14, 14, 256),
        (2, 7, 7, 512),
    ]


def test_feature_maps_of_mobilenet_v2_are_the_rows_of_its_table():
    maps = shapes(abstract("mobilenet_v2"), 224)[:-1]
    assert [shape[1:] for shape in maps] == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 32),
        (14, 14, 64),
        (14, 14, 96),
        (7, 7, 160),
        (7, 7, 320),
    ]


@pytest.mark.parametrize(
    ("name", "width", "narrow"),
    [
        ("mobilenet_v1", 0.25, "mobilenet_v1_025"),
        ("mobilenet_v2", 0.35, "mobilenet_v2_035"),
        ("mobilenet_v3_large", 0.75, "mobilenet_v3_large_075"),
    ],
)
def test_width_makes_the_narrow_variants(name, width, narrow):
    assert count(abstract(name, width=width)) == GOLDEN[narrow]["params"]


def test_widths_are_cut_in_v1_and_rounded_in_v2_and_v3():
    def widths(name):
        return [shape[-1] for shape in shapes(abstract(name, width=0.6), 64)[:-1]]

    assert widths("mobilenet_v1") == [38, 76, 153, 307, 614]
    assert widths("mobilenet_v2") == [16, 16, 24, 40, 56, 96, 192]
    assert widths("mobilenet_v3_large") == [16, 16, 24, 48, 64, 96]
    assert widths("resnet18") == [40, 80, 152, 304]


def test_plain_cbam_has_neither_biases_nor_norm():
    model = abstract("cbam_resnet18", mlp_bias=False, spatial_norm=False)
    assert count(model) == 11_777_336
    assert count(model, nnx.BatchStat) == GOLDEN["resnet18"]["batch_stats"]


def test_the_small_stem_neither_strides_nor_pools():
    assert shapes(abstract("resnet50", stem="small"), 32)[0] == (2, 32, 32, 256)
    assert shapes(abstract("resnet50d", stem="small"), 32)[0] == (2, 32, 32, 256)
    assert shapes(abstract("mobilenet_v2", stem="small"), 32)[0] == (2, 32, 32, 16)


def epsilons(model) -> set[float]:
    return {module.epsilon for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)}


@pytest.mark.parametrize(
    ("name", "options", "epsilon"),
    [
        ("resnet50", {}, 1e-5),
        ("resnet50", {"padding": "same"}, 1e-3),
        ("mobilenet_v3_large", {}, 1e-3),
        ("mobilenet_v3_large", {"epsilon": 1e-5}, 1e-5),
        ("mobilenet_v3_small_075", {}, 1e-5),
        ("mobilenet_v3_small_075", {"padding": "same"}, 1e-3),
        ("mobilenet_v3_small_minimal", {}, 1e-3),
    ],
)
def test_epsilon_is_that_of_the_published_weights(name, options, epsilon):
    assert epsilons(abstract(name, **options)) == {epsilon}


def test_minimal_networks_have_3x3_kernels_relu_and_no_attention():
    model = abstract("mobilenet_v3_large_minimal")
    kernels = {module.kernel.shape[0] for _, module in nnx.iter_modules(model) if isinstance(module, Convolution)}
    assert kernels == {1, 3}
    assert all(block.attention is None for blocks in model.stages for block in blocks)
    activations = {getattr(module, "activation", None) for _, module in nnx.iter_modules(model)}
    assert activations == {jax.nn.relu, None}


def test_options_are_those_of_the_build_function():
    assert registry.get("mobilenet_v2_050").options == {
        "width": 0.5,
        "stem": "standard",
        "padding": "symmetric",
        "dropout": 0.2,
    }
    assert registry.get("cbam_resnet18").options["kernel_size"] == 7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"width": 0}, "width cannot be 0: give a number above 0, such as width=0.5."),
        ("mobilenet_v1", {"width": -1.0}, "width cannot be -1.0: give a number above 0, such as width=0.5."),
        ("mobilenet_v2", {"width": float("nan")}, "width cannot be nan: give a number above 0, such as width=0.5."),
        ("mobilenet_v3_large", {"width": "wide"}, "width cannot be 'wide': give a number above 0, such as width=0.5."),
        ("cbam_resnet18", {"spatial_norm": "no"}, "spatial_norm cannot be 'no': give spatial_norm=True or False."),
        ("resnet18", {"stem": "tiny"}, "stem cannot be 'tiny': give stem='standard' or stem='small'."),
        ("mobilenet_v1", {"stem": "tiny"}, "stem cannot be 'tiny': give stem='standard' or stem='small'."),
        ("resnet18", {"padding": "valid"}, "padding cannot be 'valid': give padding='symmetric' or padding='same'."),
        (
            "cbam_resnet18",
            {"kernel_size": 6},
            "kernel_size cannot be 6: give an odd number of pixels, such as kernel_size=7.",
        ),
        (
            "mobilenet_v2",
            {"dropout": 1.0},
            "dropout cannot be 1.0: give a number from 0 up to but not including 1, such as dropout=0.2.",
        ),
        (
            "resnet18",
            {"stochastic_depth": -0.1},
            "stochastic_depth cannot be -0.1: give a number from 0 up to but not including 1, such as "
            "stochastic_depth=0.2.",
        ),
        (
            "resnet18",
            {"widht": 1},
            "resnet18 takes no option 'widht'. Did you mean width? It takes width=1.0, stem='standard', "
            "padding='symmetric', dropout=0.0, stochastic_depth=0.0.",
        ),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_possible(name, options, message):
    with pytest.raises(ArchitectureError) as error:
        flaxnets.create(name, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(("classes", "channels"), [(-1, 3), (10, 0)])
def test_impossible_numbers_of_classes_and_channels_are_refused(classes, channels):
    with pytest.raises(ArchitectureError, match=r"give num_classes=0 for the embedding, or more, and in_channels=1"):
        flaxnets.create("resnet18", classes, channels)


@pytest.mark.parametrize(("name", "size"), [("resnet50", 31), ("mobilenet_v3_small", 16)])
def test_an_image_smaller_than_the_stride_is_refused(name, size):
    with pytest.raises(ArchitectureError, match=rf"Images of {size}x{size} pixels are too small .* at least 32x32"):
        shapes(abstract(name), size)


def test_dropped_parts_hold_randomness_only_where_they_drop():
    def streams(**options):
        return len(jax.tree.leaves(nnx.state(abstract("resnet18", **options), nnx.RngState)))

    assert streams() == 0
    assert streams(dropout=0.5) == 2  # a key and a counter
    assert streams(stochastic_depth=0.5) == 8 * 2


def test_stochastic_depth_grows_linearly_to_the_last_block():
    model = abstract("resnet18", stochastic_depth=0.4)
    rates = [block.drop.rate for blocks in model.stages for block in blocks]
    np.testing.assert_allclose(rates, np.linspace(0.05, 0.4, 8))


def test_an_abstract_model_is_what_create_makes():
    options = {"width": 0.1, "stem": "small", "stochastic_depth": 0.2}
    made, shapes_only = flaxnets.create("se_resnet18", 3, 1, **options), abstract("se_resnet18", 3, 1, **options)
    expected = jax.tree.map(lambda array: (array.shape, array.dtype), nnx.to_pure_dict(nnx.state(made)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), nnx.to_pure_dict(nnx.state(shapes_only))) == expected


def test_a_narrow_network_with_every_option_trains_and_infers():
    """The one network that is run: CBAM contains ResNet, attention, and both kinds of dropping."""
    model = flaxnets.create("cbam_resnet18", 10, 1, seed=3, width=0.1, stem="small", dropout=0.3, stochastic_depth=0.5)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 9, 11, 1)), jnp.float32)
    definition, params, batch_stats = split_model(model)
    train, infer = jax.jit(definition.train), jax.jit(definition.infer)
    first, _ = train(params, batch_stats, images, jax.random.key(0))
    again, _ = train(params, batch_stats, images, jax.random.key(0))
    other, _ = train(params, batch_stats, images, jax.random.key(1))
    assert (first == again).all()
    assert not jnp.allclose(first, other)
    inferred = infer(params, batch_stats, images)
    assert inferred.shape == (4, 10)
    np.testing.assert_allclose(inferred[::-1], infer(params, batch_stats, images[::-1]), rtol=1e-4, atol=1e-5)
