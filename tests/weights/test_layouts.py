"""Every architecture reads and writes every layout that it names; what does not fit is reported all at once."""

import logging

import numpy as np
import pytest
from flax import nnx
from golden import NAMES, REFERENCES, abstract, checkpoint

import flaxnets
from flaxnets import registry
from flaxnets.errors import WeightsError
from flaxnets.weights.layouts import match, recognise, slots

RESNET18 = checkpoint(dict(REFERENCES["resnet18"]["tensors"]))
OTHER_CLASSES = {**RESNET18, "fc.weight": np.ones((10, 512), np.float32), "fc.bias": np.zeros(10, np.float32)}


def values(model: nnx.Module) -> dict[tuple, np.ndarray]:
    weights = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    return {path: np.asarray(variable[...]) for path, variable in nnx.to_flat_state(weights)}


def assert_equal(model: nnx.Module, other: nnx.Module) -> None:
    others = values(other)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, others[path], err_msg=str(path))


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_has_a_name_of_its_own_in_every_layout(name):
    model = abstract(name)
    layouts = registry.get(name).layouts
    assert layouts
    own = {slot.name for slot in slots(model, None)}
    for layout in layouts.values():
        named = {slot.name: slot for slot in slots(model, layout)}
        assert len(named) == len(own)
        assert all(slot.name not in own for slot in named.values() if slot.path[0] != "classifier")
        assert recognise(model, {key: np.zeros(()) for key in named}, layouts, name)[0] is layout


@pytest.mark.parametrize("name", REFERENCES)
def test_names_and_shapes_are_those_of_the_reference(name):
    model, layouts = abstract(name), registry.get(name).layouts
    reference = {key: tuple(shape) for key, shape in dict(REFERENCES[name]["tensors"]).items()}
    found = [{slot.name: slot.shape for slot in slots(model, layout)} for layout in layouts.values()]
    assert found[0] == reference


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "cbam_resnet18"])
def test_every_layout_gives_back_the_same_bits(name):
    model = flaxnets.create(name, num_classes=5, seed=3)
    layouts = registry.get(name).layouts
    for layout in (None, *layouts.values()):
        state = values(model)
        tensors = {slot.name: slot.write(state[slot.path]) for slot in slots(model, layout)}
        assert_equal(flaxnets.create(name, num_classes=5, weights=tensors), model)


def test_dropout_has_no_weights():
    model = flaxnets.create("resnet18", num_classes=5, dropout=0.5, stochastic_depth=0.1)
    assert len(slots(model, None)) == len(RESNET18)


def test_training_checkpoints_and_counters_are_accepted():
    parallel = {f"module.{key}": array for key, array in RESNET18.items()}
    parallel["module.bn1.num_batches_tracked"] = np.array(7)
    assert_equal(
        flaxnets.create("resnet18", weights={"state_dict": parallel, "epoch": 3}),
        flaxnets.create("resnet18", weights=RESNET18),
    )


def test_weights_are_copied():
    tensors = {key: array.copy() for key, array in RESNET18.items()}
    model = flaxnets.create("resnet18", weights=tensors)
    before = {path: value.copy() for path, value in values(model).items()}
    for array in tensors.values():
        array.fill(0)
    assert all((values(model)[path] == value).all() for path, value in before.items())


def test_halves_become_float32():
    halves = {key: array.astype(np.float16) for key, array in RESNET18.items()}
    arrays = match(abstract("resnet18"), halves, registry.get("resnet18").layouts, "resnet18")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_a_classifier_of_other_classes_keeps_its_initial_values(caplog):
    new = flaxnets.create("resnet18", num_classes=7, seed=5)
    with caplog.at_level(logging.WARNING, logger="flaxnets"):
        model = flaxnets.create("resnet18", num_classes=7, seed=5, weights=OTHER_CLASSES)
    assert [record.getMessage() for record in caplog.records] == [
        "The weights are of other classes (fc.bias [10] and fc.weight [10, 512]): "
        "the classifier keeps its initial values."
    ]
    np.testing.assert_array_equal(values(model)["classifier", "kernel"], values(new)["classifier", "kernel"])
    np.testing.assert_array_equal(values(model)["stem", "layers", 0, "norm", "bias"], RESNET18["bn1.bias"])


def test_the_same_classes_are_taken_over_without_a_message(caplog):
    model = flaxnets.create("resnet18", num_classes=10, weights=OTHER_CLASSES)
    assert not caplog.records
    np.testing.assert_array_equal(values(model)["classifier", "kernel"], np.ones((512, 10)))


def test_a_model_without_classifier_leaves_out_the_checkpoints(caplog):
    model = flaxnets.create("resnet18", num_classes=0, weights=RESNET18)
    assert model.classifier is None
    assert "this model has no classifier" in caplog.text


def test_everything_that_does_not_fit_is_reported_at_once():
    wrong = {
        **RESNET18,
        "bn1.weight": np.ones(32, np.float32),
        "bn1.bias": np.ones(64, int),
        "extra.weight": np.ones(1),
    }
    del wrong["layer1.0.conv1.weight"], wrong["fc.bias"]
    with pytest.raises(WeightsError) as caught:
        flaxnets.create("resnet18", weights=wrong)
    for problem in (
        "The weights do not fit resnet18. Missing: fc.bias, layer1.0.conv1.weight; ",
        "not in the model: extra.weight; ",
        "of another shape: bn1.weight [32] in place of [64]; ",
        "no real numbers: bn1.bias int64. Give ",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"fc.weight": np.ones((10, 256), np.float32), "fc.bias": np.ones(10, np.float32)},
            r"fc.weight \[10, 256\]",
        ),
        ({"fc.weight": np.ones((10, 512), np.float32)}, r"fc.weight \[10, 512\]"),
        ({"fc.bias": np.float32(1)}, r"fc.bias \[\] in place of \[1000\]"),
        ({"conv1.weight": np.ones((64, 1, 7, 7), np.float32)}, r"conv1.weight \[64, 1, 7, 7\]"),
        (
            {"conv1.weight": RESNET18["conv1.weight"].transpose(2, 3, 1, 0)},
            r"\[7, 7, 3, 64\] in place of \[64, 3, 7, 7\]",
        ),
    ],
)
def test_shapes_must_match(change, message):
    with pytest.raises(WeightsError, match=message):
        flaxnets.create("resnet18", weights={**RESNET18, **change})


def test_weights_of_another_family_name_the_layouts_that_would_do():
    with pytest.raises(
        WeightsError, match=r"other names than those of mobilenet_v2, such as conv1.*: flaxnets .*, timm"
    ):
        flaxnets.create("mobilenet_v2", weights=RESNET18)


def test_weights_of_a_smaller_network_name_what_is_missing():
    with pytest.raises(WeightsError, match=r"do not fit resnet34. Missing: .*layer3\.5\.conv2\.weight"):
        flaxnets.create("resnet34", weights=RESNET18)


@pytest.mark.parametrize(("name", "options"), [("resnet50d", {}), ("mobilenet_v2", {"width": 0.6, "stem": "small"})])
def test_options_do_not_change_the_names(name, options):
    layout = registry.get(name).layouts["timm"]
    plain, changed = (slots(abstract(name, **given), layout) for given in ({}, options))
    assert [slot.name for slot in plain] == [slot.name for slot in changed]
