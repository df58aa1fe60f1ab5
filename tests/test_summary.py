"""Costs of single layers by the textbook's formulas, of foreign modules, and what the command prints."""

import json
import time

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import flaxnets
from flaxnets import cli
from flaxnets.errors import ArchitectureError
from flaxnets.layers import AveragePool, ConvNorm, Convolution, MaxPool
from flaxnets.plugin import ImageClassifier

RNGS = nnx.Rngs(0)


@pytest.mark.parametrize(
    ("layer", "params"),
    [
        (lambda: Convolution(4, 8, 3, rngs=RNGS), 288),
        (lambda: Convolution(4, 8, 3, groups=2, rngs=RNGS), 144),
        (lambda: Convolution(4, 4, 3, groups=4, rngs=RNGS), 36),
        (lambda: Convolution(4, 8, 1, rngs=RNGS), 32),
        (lambda: nnx.Conv(4, 8, (3, 3), use_bias=False, rngs=RNGS), 288),
        (lambda: nnx.Conv(4, 4, (3, 3), use_bias=False, feature_group_count=4, rngs=RNGS), 36),
        (lambda: nnx.Sequential(Convolution(4, 4, 3, groups=4, rngs=RNGS), Convolution(4, 8, 1, rngs=RNGS)), 68),
        (lambda: Convolution(256, 256, 3, rngs=RNGS), 589_824),
    ],
)
def test_parameters_and_multiply_adds_of_convolutions(layer, params):
    """At stride 1 each parameter is used once a pixel: k * k * M * N, times D * D."""
    summary = flaxnets.summary(layer(), 14, batch=3)
    assert (summary.params, summary.macs) == (params, params * 14 * 14)
    assert summary.rows[-1].output_shape == (3, 14, 14, summary.rows[-1].output_shape[-1])


def test_two_wide_layers_and_the_bottleneck_that_replaces_them():
    wide = nnx.Sequential(*(Convolution(256, 256, 3, rngs=RNGS) for _ in range(2)))
    narrow = nnx.Sequential(*(Convolution(*sizes, rngs=RNGS) for sizes in ((256, 64, 1), (64, 64, 3), (64, 256, 1))))
    assert flaxnets.summary(wide, 8).params == 1_179_648
    assert flaxnets.summary(narrow, 8).params == 69_632


def test_a_linear_layer_takes_vectors():
    summary = flaxnets.summary(nnx.Linear(5, 7, rngs=RNGS), batch=2)
    assert (summary.params, summary.macs, summary.input_shape) == (42, 35, (2, 5))
    assert summary.rows[0].output_shape == (2, 7)
    assert summary.rows[0].receptive_field is None


@pytest.mark.parametrize(("kernel_size", "strides", "size"), [(3, 1, 9), (3, 2, 9), (5, 2, 10), (7, 2, 33)])
def test_output_size(kernel_size, strides, size):
    """(W + 2P - k) / S + 1."""
    row = flaxnets.summary(Convolution(1, 1, kernel_size, strides, rngs=RNGS), size).rows[0]
    out = (size + 2 * (kernel_size // 2) - kernel_size) // strides + 1
    assert row.output_shape == (1, out, out, 1)


def test_receptive_field_follows_the_formula():
    layers = [(3, 1), (3, 2), (5, 1), (1, 1), (3, 2), (7, 1)]
    rows = flaxnets.summary(nnx.Sequential(*(Convolution(1, 1, *layer, rngs=RNGS) for layer in layers)), 64).rows
    field, stride = 1, 1
    for (kernel_size, strides), row in zip(layers, rows, strict=True):
        field, stride = field + (kernel_size - 1) * stride, stride * strides
        assert (row.receptive_field, row.stride) == (field, stride)


@pytest.mark.parametrize(
    ("name", "field"),
    [("resnet18", 435), ("resnet50", 427), ("mobilenet_v1", 315), ("mobilenet_v2", 491), ("mobilenet_v3_small", 639)],
)
def test_receptive_fields_of_whole_networks(name, field):
    """The largest over parallel branches; those of ResNet-18, MobileNet V1 and V2 are also in the literature."""
    summary = flaxnets.summary(name)
    assert (summary.receptive_field, summary.stride) == (field, 32)


def test_pooling_counts_in_the_receptive_field():
    rows = flaxnets.summary(nnx.Sequential(MaxPool(3, 2), AveragePool(2)), 16, in_channels=2).rows
    assert [(row.receptive_field, row.stride) for row in rows] == [(3, 2), (5, 4)]


def test_a_dilated_kernel_reaches_further():
    row = flaxnets.summary(nnx.Conv(1, 1, (3, 3), kernel_dilation=4, rngs=RNGS), 32).rows[0]
    assert row.receptive_field == 9


class Foreign(nnx.Module):
    """Nothing of flaxnets: functions where flaxnets has layers, a parameter of its own, one layer used twice."""

    def __init__(self):
        self.first = nnx.Conv(3, 6, (5, 5), padding="VALID", rngs=RNGS)
        self.twice = nnx.Linear(6, 6, rngs=RNGS)
        self.last = nnx.Linear(6 * 6 * 6, 10, rngs=RNGS)
        self.scale = nnx.Param(jnp.ones(6))
        self.norm = nnx.BatchNorm(6, rngs=RNGS)
        self.dropout = nnx.Dropout(0.5, rngs=RNGS)

    def __call__(self, images):
        x = nnx.max_pool(jax.nn.relu(self.first(images)), (2, 2), strides=(2, 2))
        x = self.dropout(self.norm(self.twice(self.twice(x) * self.scale)))
        return self.last(x.reshape(len(x), -1))


def test_a_foreign_module_needs_nothing_of_flaxnets():
    model = Foreign()
    summary = flaxnets.summary(model, 16, batch=2)
    assert summary.params == 5 * 5 * 3 * 6 + 6 + 6 * 6 + 6 + 216 * 10 + 10 + 6 + 12
    assert summary.batch_stats == 12
    assert summary.macs == 12 * 12 * 5 * 5 * 3 * 6 + 2 * 6 * 6 * 36 + 2160
    assert (summary.receptive_field, summary.stride) == (6, 2)
    assert [(row.path, row.params) for row in summary.rows] == [
        ("", 6),  # its scale and its pooling
        ("first", 456),
        ("twice", 42),
        ("norm", 12),
        ("dropout", 0),
        ("last", 2170),
    ]
    assert not model.norm.use_running_average  # the model itself is as it was


def test_memory_counts_bytes():
    summary = flaxnets.summary(ConvNorm(3, 4, rngs=RNGS), 8, batch=2)
    assert summary.input_bytes == 2 * 8 * 8 * 3 * 4
    assert summary.param_bytes == (3 * 3 * 3 * 4 + 4 * 4) * 4
    assert summary.activation_bytes == 2 * (2 * 8 * 8 * 4) * 4  # convolution and norm
    halved = flaxnets.summary(ConvNorm(3, 4, dtype=jnp.bfloat16, rngs=RNGS), 8, batch=2)
    assert halved.activation_bytes == summary.activation_bytes // 2


def test_sizes_channels_and_options_can_be_given():
    summary = flaxnets.summary("mobilenet_v2", (64, 96), in_channels=1, num_classes=10, width=0.5)
    assert summary.input_shape == (1, 64, 96, 1)
    assert summary.rows[-1].output_shape == (1, 10)
    assert summary.rows[0].output_shape == (1, 32, 48, 16)


def test_rows_add_up_to_the_totals():
    summary = flaxnets.summary("cbam_resnet50")
    assert sum(row.params for row in summary.rows) == summary.params
    assert sum(row.macs for row in summary.rows) == summary.macs


def test_the_largest_network_takes_under_3_seconds():
    flaxnets.summary("resnet18")  # what the libraries import
    started = time.process_time()  # not the wall clock's, which other programs slow down
    flaxnets.summary("resnet152")
    assert time.process_time() - started < 3


class Emptied(nnx.Module):
    def __call__(self, x):
        return nnx.max_pool(x, (3, 3), strides=(3, 3)).mean((1, 2))


def test_what_a_model_cannot_take_is_said():
    with pytest.raises(ArchitectureError, match=r"Foreign cannot take .*\(1, 20, 20, 3\): .* Give another image_size"):
        flaxnets.summary(Foreign(), 20)
    empty = ImageClassifier(stem=nnx.Sequential(), stages=[[MaxPool(1, 1)]], head=Emptied(), classifier=None)
    with pytest.raises(ArchitectureError, match=r"cannot be less than 1; give larger ones\.$"):
        flaxnets.summary(empty, 0)
    with pytest.raises(ArchitectureError, match="are too small for a network of stride 32: give at least 32x32"):
        flaxnets.summary("resnet18", 24)


def test_nothing_left_of_an_image_is_an_error():
    layers = nnx.Sequential(lambda x: nnx.max_pool(x, (3, 3), strides=(3, 3)), nnx.BatchNorm(3, rngs=RNGS))
    with pytest.raises(ArchitectureError, match=r"Nothing is left of .* give a larger image_size\.$"):
        flaxnets.summary(layers, 2)


def test_the_command_prints_a_table_that_fits(capsys, monkeypatch):
    for width in (120, 80, 50):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        assert cli.main(["summary", "resnet18", "--image-size", "64", "--batch", "2"]) == 0
        printed = capsys.readouterr().out
        assert "11,689,512" in printed
        assert "stem.layers.0" in printed
        assert all(len(line) <= width for line in printed.splitlines() if "\x1b" not in line)


def test_the_command_prints_json(capsys):
    assert cli.main(["summary", "resnet18", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["params"], found["macs"], found["receptive_field"]) == (11_689_512, 1_814_073_344, 435)
    assert found["rows"][0] == {
        "path": "stem.layers.0.convolution",
        "kind": "Convolution",
        "output_shape": [1, 112, 112, 64],
        "params": 9408,
        "macs": 118_013_952,
        "receptive_field": 7,
        "stride": 2,
    }


def test_info_shows_what_is_known(capsys):
    assert cli.main(["info", "mobilenet_v3_large_075"]) == 0
    printed = capsys.readouterr().out
    for text in ("arXiv:1905.02244", "3,993,528", "73.3 %", "224x224", "0.485, 0.456, 0.406", "width=0.75", "dropout="):
        assert text in printed
    assert cli.main(["info", "resnet18", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["stem"] == "standard"


@pytest.mark.parametrize("command", ["info", "summary"])
def test_an_unknown_name_is_one_sentence(command, capsys):
    assert cli.main([command, "resnet5"]) == 2
    assert "Did you mean resnet50" in capsys.readouterr().err
