"""TensorFlow Lite files: each layer stays one operator, answers stay the model's, and mistakes are told."""

import importlib.util
import json
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from extras import needs
from flax import nnx

import flaxnets
from flaxnets.cli import main
from flaxnets.errors import ArchitectureError, WeightsError
from flaxnets.layers import CBAM, AveragePool, ConvNorm, Convolution, MaxPool, SqueezeExcite
from flaxnets.models import in_mode
from flaxnets.tools import export_tflite, exported, tflite

TENSORFLOW = needs("tensorflow", "tflite")
RANDOM = np.random.default_rng(0)


def function_of(module):
    graph, state = nnx.split(module)
    return lambda images: nnx.merge(graph, state)(images)


def images(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@TENSORFLOW
def test_mobilenet_v2_has_the_operators_of_its_layers_and_no_others():
    """Without transposes, without ReLU6 beside its convolution, without the many operators of the forms for CPUs."""
    model = flaxnets.create("mobilenet_v2", num_classes=10, width=0.35, stem="small")
    content = tflite.convert(function_of(flaxnets.fold_batch_norm(model)), (1, 32, 32, 3))
    assert tflite.operators(content) == {
        "CONV_2D": 35,
        "DEPTHWISE_CONV_2D": 17,
        "ADD": 10,
        "PAD": 4,  # PyTorch's padding of the strided layers, which TensorFlow Lite's SAME is not
        "SUM": 1,
        "FULLY_CONNECTED": 1,
    }
    batch = images(3, 32, 32, 3)
    np.testing.assert_allclose(tflite.Interpreter(content, "file")(batch), model(batch), rtol=1e-4, atol=1e-5)


class EveryLayer(nnx.Module):
    """What networks have beside MobileNetV2's layers."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            [
                ConvNorm(3, 16, strides=2, padding="same", activation=jax.nn.hard_swish, rngs=rngs),
                ConvNorm(16, 32, groups=2, rngs=rngs),
                SqueezeExcite(32, 8, gate=jax.nn.hard_sigmoid, rngs=rngs),
                CBAM(32, rngs=rngs),
                ConvNorm(32, 32, 5, groups=32, activation=None, rngs=rngs),
                MaxPool(3, 2),  # of values below 0, too
                Convolution(32, 16, dilation=2, use_bias=True, rngs=rngs),
                AveragePool(2),
            ]
        )

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.reshape(x.shape[0], -1)


@TENSORFLOW
@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 0.002), ("dynamic-range", 0.1), ("int8", 0.1)])
def test_all_layers_are_converted_in_all_precisions(precision, tolerance):
    layers = in_mode(EveryLayer(nnx.Rngs(0)), training=False)
    batch = images(40, 32, 32, 3)
    content = tflite.convert(function_of(layers), (1, 32, 32, 3), precision=precision, calibration=batch)
    found = tflite.operators(content)
    assert (found["CONV_2D"], found["DEPTHWISE_CONV_2D"]) == (4, 1)
    assert found["HARD_SWISH"] == found["MAX_POOL_2D"] == found["AVERAGE_POOL_2D"] == 1
    assert not {"TRANSPOSE", "SELECT_V2", "ARG_MAX", "CUSTOM"} & set(found)
    expected = np.asarray(layers(batch))
    assert np.abs(tflite.Interpreter(content, "file")(batch) - expected).max() <= tolerance * np.abs(expected).max()


def medians(images):
    """What a plugin might think of: TensorFlow Lite can sort nothing."""
    return jnp.median(images, axis=(1, 2))


@TENSORFLOW
def test_an_operator_that_tensorflow_lite_lacks_is_named():
    with pytest.raises(ArchitectureError, match=r"^TensorFlow Lite lacks an operator of this network: sort") as caught:
        tflite.convert(medians, (1, 8, 8, 3))
    assert str(caught.value).endswith("; use another layer, or --format stablehlo.")


@pytest.mark.parametrize(("function", "name"), [(jax.lax.erf, "erf"), (jnp.linalg.eigh, "syevd")])
def test_where_the_converter_names_only_the_whole_program_it_is_searched(function, name):
    program = jax.export.export(jax.jit(function), platforms=["cpu"])(jax.ShapeDtypeStruct((8, 8), jnp.float32))
    told = tflite._cannot_convert("ConverterError: error: 'tf.XlaCallModule' op is neither a custom op nor", program)
    assert told.startswith("TensorFlow Lite lacks an operator of this network: ")
    assert name in told


@pytest.fixture(scope="module")
def int8_file(trained_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "int8"
    options = ["--format", "tflite", "--precision", "int8", "--preprocess", "--calibration", "100", "--out", str(out)]
    assert main(["export", str(trained_run.folder), *options]) == 0
    return out / "model.tflite"


@TENSORFLOW
def test_a_file_of_int8_takes_pixels_and_is_as_good_as_its_run(int8_file, trained_run, capsys):
    content = int8_file.read_bytes()
    interpreter = tflite.Interpreter(content, "file")
    assert interpreter.inputs == [((1, 16, 16, 3), "uint8")]
    # Pixels go in as they are: the input has a scale of 1.
    assert interpreter._interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
    assert tflite.operators(content)["CONV_2D"] == 2
    assert (
        main(
            [
                "evaluate",
                str(trained_run.folder),
                str(int8_file),
                "--data.name",
                f"folder:{trained_run.pictures}",
                "--json",
            ]
        )
        == 0
    )
    run, file, _ = json.loads(capsys.readouterr().out)
    assert run["top1"] > 0.5
    assert file["top1"] == pytest.approx(run["top1"], abs=0.02)


@TENSORFLOW
def test_other_files_are_refused(int8_file, tmp_path):
    content = int8_file.read_bytes()
    for spoilt in (b"", b"TFL3", b"\x89PNG\r\n\x1a\n" * 9):
        with pytest.raises(WeightsError, match=r"^x is no TensorFlow Lite file; give one that `flaxnets export` wrote"):
            tflite.Interpreter(spoilt, "x")
    with pytest.raises(WeightsError, match=r"^LiteRT cannot run x \(.+\); export the network again"):
        tflite.Interpreter(content[: len(content) // 2], "x")
    description = exported.open_exported(int8_file).description.model_copy(update={"image_size": 17})
    with pytest.raises(
        WeightsError, match=r"^x maps .* and its description says .*17.*; give both files of one export"
    ):
        export_tflite.load(content, description, "x")


@TENSORFLOW
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibration", "31"], "--calibration 31 is too few pictures to find the ranges of a network's values with"),
        (["--calibration-data", "folder:{few}"], "has 2 pictures for training, too few to find the ranges"),
    ],
)
def test_too_few_pictures_to_calibrate_with_are_told(options, message, trained_run, tmp_path, capsys):
    for split, count in (("train", 2), ("val", 1)):
        for name in ("zero", "one"):
            (folder := tmp_path / "few" / split / name).mkdir(parents=True)
            for file in sorted((trained_run.pictures / name).iterdir())[: count // 2 or 1]:
                (folder / file.name).write_bytes(file.read_bytes())
    options = [option.format(few=tmp_path / "few") for option in options]
    start = [
        "export",
        str(trained_run.folder),
        "--format",
        "tflite",
        "--precision",
        "int8",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*start, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "give 32 or more" in error
    assert not (tmp_path / "o").exists()


def test_the_extra_is_asked_for_and_else_never_imported(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(trained_run.folder), "--format", "tflite", "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err == (
        "Error: TensorFlow Lite needs tensorflow and ai_edge_litert, which the plain installation lacks: run "
        '`pip install "flaxnets[tflite]"`.\n'
    )
    assert "tensorflow" not in sys.modules
