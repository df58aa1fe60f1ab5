"""Exported files: they answer as the network does, and are refused where they are not what they say."""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxnets import cli, registry
from flaxnets.errors import ArchitectureError, ConfigError, WeightsError
from flaxnets.tools import comparison, export_stablehlo
from flaxnets.tools.exported import Description, describe, files, open_exported
from flaxnets.tools.trained import open_run


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The folder of a run's StableHLO file, and what the command said."""
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert cli.main(["export", str(trained_run.folder), "--format", "stablehlo", "--out", str(folder)]) == 0
    return folder, lines


@pytest.fixture
def copy(exported, tmp_path):
    """A file to spoil."""
    return shutil.copytree(exported[0], tmp_path / "copy") / "model.stablehlo"


def rewritten(file, content=None, **changes):
    """The file with another content, or its description with other fields; with the right checksum."""
    beside = file.with_suffix(".json")
    described = json.loads(beside.read_text())
    if content is not None:
        file.write_bytes(content)
        described["sha256"] = hashlib.sha256(content).hexdigest()
    beside.write_text(json.dumps({**described, **changes}))
    return file


def program(function, *, shape="b, 16, 16, 3", platforms=("cpu",)) -> bytes:
    arguments = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float32)
    return bytes(jax.export.export(jax.jit(function), platforms=platforms)(arguments).serialize())


def test_the_command_says_what_differs_and_leaves_two_files(exported, trained_run):
    folder, lines = exported
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.stablehlo"]
    assert lines[0].startswith("Loaded again and compared with the model on 64 of its test pictures: logits by ")
    assert lines[0].endswith("same class for 64 of 64.")
    described = json.loads((folder / "model.json").read_text())
    record = json.loads((trained_run.folder / "run.json").read_text())
    assert (described["class_names"], described["mean"]) == (record["class_names"], record["mean"])
    assert (described["input"], described["output"], described["centre_crop"]) == ("normalised", "logits", None)


def test_one_program_is_for_three_platforms_and_any_batch(exported):
    held = jax.export.deserialize(bytearray((exported[0] / "model.stablehlo").read_bytes()))
    assert held.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in held.in_avals[0].shape] == ["batch", "16", "16", "3"]
    assert held.out_avals[0].dtype == jnp.float32


def test_it_predicts_without_its_plugin_what_the_run_predicts(exported, trained_run, tiny_plugin, monkeypatch, capsys):
    pictures = list(map(str, sorted(trained_run.pictures.glob("s*/*.png"))[:20]))
    options = ["--json", "--compilation-cache", str(trained_run.folder.parent / "compiled")]
    assert cli.main(["predict", str(trained_run.folder), *pictures, *options]) == 0
    by_run = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tiny_plugin)])
    monkeypatch.delitem(sys.modules, "flaxnets_tiny", raising=False)
    with pytest.raises(ArchitectureError, match="No architecture named 'tiny_net'"):
        registry.get("tiny_net")
    assert cli.main(["predict", str(exported[0] / "model.stablehlo"), *pictures, *options]) == 0
    by_file = capsys.readouterr().out.splitlines()
    assert len(by_file) == len(by_run) == 20
    for ours, theirs in zip(map(json.loads, by_file), map(json.loads, by_run), strict=True):
        assert (ours["picture"], ours["label"]) == (theirs["picture"], theirs["label"])
        assert [each["name"] for each in ours["classes"]] == [each["name"] for each in theirs["classes"]]
        found, expected = ([each["probability"] for each in line["classes"]] for line in (ours, theirs))
        assert found == pytest.approx(expected, abs=1e-5)


def test_preprocessing_and_softmax_can_be_inside(exported, trained_run, tmp_path, capsys):
    out = tmp_path / "inside"
    options = ["--format", "stablehlo", "--preprocess", "--softmax", "--out", str(out), "--json"]
    assert cli.main(["export", str(trained_run.folder), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == {path.name: path.stat().st_size for path in out.iterdir()}
    assert told["difference"]["logit"] is None
    assert told["difference"]["probability"] < 1e-5
    inside, outside = open_exported(out / "model.stablehlo"), open_exported(exported[0] / "model.stablehlo")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    probabilities = inside.compute(pixels)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(probabilities, comparison.softmax(outside.logits(pixels)), atol=1e-6)
    np.testing.assert_allclose(comparison.softmax(inside.logits(pixels)), probabilities, atol=1e-6)


def test_probabilities_that_are_too_small_for_a_float_give_finite_logits(exported):
    file = open_exported(exported[0] / "model.stablehlo")
    described = file.description.model_copy(update={"output": "probabilities"})
    certain = np.eye(10, dtype=np.float32)[:2]
    logits = dataclasses.replace(file, description=described, compute=lambda images: certain).logits(
        np.zeros((2, 1, 1, 3))
    )
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(comparison.softmax(logits).round(6), certain)


def test_evaluation_of_the_file_is_that_of_the_run(exported, trained_run, capsys):
    data = ["--data.name", f"folder:{trained_run.pictures}", "--json"]
    cache = ["--compilation-cache", str(trained_run.folder.parent / "compiled"), "--batch-size", "16"]
    assert cli.main(["evaluate", str(exported[0] / "model.stablehlo"), str(trained_run.folder), *data, *cache]) == 0
    of_file, of_run, _ = json.loads(capsys.readouterr().out)
    assert of_file["top1"] == of_run["top1"]
    assert of_file["loss"] == pytest.approx(of_run["loss"], abs=1e-5)


def test_without_the_data_it_is_compared_on_photographs(exported, trained_run):
    network = open_run(str(trained_run.folder))
    network.run.record["run"]["data"]["name"] = "folder:gone"
    pixels, kind = comparison.real_pictures(network)
    assert (pixels.shape, kind) == ((20, 16, 16, 3), "20 parts of two photographs")
    expected = comparison.answers(network, pixels)
    file = open_exported(exported[0] / "model.stablehlo")
    assert comparison.compare(file, pixels, expected).logit < 1e-5
    with pytest.raises(ArchitectureError, match="does not answer as tiny_net does: logits by"):
        comparison.compare(file, pixels, expected * 1.001)
    with pytest.raises(ArchitectureError, match="Nothing was written"):
        comparison.compare(file, pixels, expected * np.nan)


def test_without_the_cpu_there_is_no_comparison(monkeypatch):
    def no_such_backend(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_such_backend)
    with pytest.raises(ConfigError, match="which JAX_PLATFORMS leaves out; set it to cpu,cpu, or unset it"):
        comparison.on_cpu()


def test_names_that_are_no_text_are_written_as_text(trained_run):
    network = dataclasses.replace(open_run(str(trained_run.folder)), class_names=("caf\udce9", "two\nlines é"))
    described = describe(network, argparse.Namespace(preprocess=False, softmax=False), b"x")
    assert described.class_names == ("caf\\udce9", "two\nlines é")
    assert Description.model_validate_json(files("stablehlo", b"x", described)["model.json"]) == described


def test_an_export_that_differs_leaves_nothing(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "TOLERANCE", 0.0)
    out = tmp_path / "out"
    assert cli.main(["export", str(trained_run.folder), "--format", "stablehlo", "--out", str(out)]) == 2
    assert "The exported file does not answer as tiny_net does" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none"], "There is no run folder, weights file or architecture 'none'. Give one that exists."),
        (["EMPTY"], "The run in empty has no checkpoint yet; wait for its first evaluation, or resume it."),
        (["RUN", "--arch", "resnet18"], "RUN is a run, which knows its network; leave out --arch, --options and"),
        (["RUN", "--image-size", "20000"], "--image-size cannot be 20000; give at most 16384."),
        (["RUN", "--license", "mit"], "--license is not for stablehlo; leave it out, or give --format safetensors."),
        (["RUN", "--format", "safetensors", "--softmax"], "--softmax is not for safetensors; leave it out, or give"),
    ],
)
def test_mistakes_are_one_sentence(options, message, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(trained_run.folder / "run.json", "empty")
    names = {"RUN": str(trained_run.folder), "EMPTY": "empty"}
    assert cli.main(["export", "--format", "stablehlo", "--out", "out", *(names.get(o, o) for o in options)]) == 2
    assert capsys.readouterr().err.startswith(f"Error: {message.replace('RUN', names['RUN'])}")
    assert not (tmp_path / "out").exists()


class Strange(nnx.Module):
    """Another function for large batches, or one of LAPACK's."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, images):
        if self.kind == "batch":
            return images[:, 0, 0] * (2 if images.shape[0] > 3 else 1)
        return jnp.linalg.qr(images)[1][:, 0, 0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("batch", "tiny_net has a layer that does something else for some numbers of images"),
        ("lapack", "tiny_net has a layer that calls code outside the program"),
    ],
)
def test_a_layer_that_no_program_can_hold_is_told(kind, message, trained_run):
    network = dataclasses.replace(open_run(str(trained_run.folder)), model=Strange(kind))
    with pytest.raises(ArchitectureError, match=message):
        export_stablehlo.files(network, argparse.Namespace(preprocess=False, softmax=False))


SPOILT = {
    "gone": (lambda file: file.unlink(), "model.stablehlo; give one that `flaxnets export` wrote."),
    "without description": (
        lambda file: file.with_suffix(".json").unlink(),
        "has no description beside it, model.json; copy both files of",
    ),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-9]), "is damaged, or model.json is of another"),
    "no json": (lambda file: file.with_suffix(".json").write_text("{"), "describes no exported network (the file: In"),
    "newer": (lambda file: rewritten(file, description=2), "describes no exported network (description: Input should"),
    "unknown field": (lambda file: rewritten(file, more=1), "describes no exported network (more: Extra inputs are"),
    "no deviation": (lambda file: rewritten(file, std=[0, 1, 1]), "std is above 0"),
    "too large": (lambda file: rewritten(file, image_size=10**9), "(image_size: Input should be less than or equal"),
    "other classes": (lambda file: rewritten(file, class_names=["a"]), "its description says float32 [b, 16, 16, 3]"),
    "garbage": (lambda file: rewritten(file, b"garbage" * 100), "is no program that JAX"),
    "half": (lambda file: rewritten(file, file.read_bytes()[: 10**4]), "is no program that JAX"),
    "other platform": (lambda file: rewritten(file, program(lambda x: x, platforms=("tpu",))), "is for tpu, and this"),
    "other program": (lambda file: rewritten(file, program(lambda x: x)), "is a program of float32 [b, 16, 16, 3] and"),
    "fixed batch": (
        lambda file: rewritten(file, program(lambda x: x[:, 0, 0, :1] @ jnp.ones((1, 10)), shape="1, 16, 16, 3")),
        "is a program of float32 [1, 16, 16, 3] and float32 [1, 10]",
    ),
    "custom call": (
        lambda file: rewritten(file, program(lambda x: jnp.linalg.qr(x)[1].reshape(x.shape[0], -1)[:, :10])),
        "calls code outside itself ('lapack_sgeqrf_ffi",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_file_that_is_not_what_it_says_is_refused(kind, copy, capfd):
    spoil, message = SPOILT[kind]
    spoil(copy)
    with pytest.raises(WeightsError) as raised:
        open_exported(copy)
    assert message in str(raised.value)
    assert "; " in str(raised.value)  # and then the fix
    assert capfd.readouterr().err == ""


def test_an_exported_file_knows_its_input(exported, capsys):
    file = str(exported[0] / "model.stablehlo")
    assert cli.main(["predict", file, "a.png", "--image-size", "32"]) == 2
    assert "is an exported network, which knows its input and classes; leave out --arch" in capsys.readouterr().err
    assert cli.main(["bench", file, "--batch", "4"]) == 2
    assert "--batch is not for an exported file, which is timed as it is" in capsys.readouterr().err


def test_latency_is_measured_by_threads_beside_the_model(exported, flaxnets, monkeypatch):
    from flaxnets.tools import bench_exported

    monkeypatch.setattr(bench_exported, "THREADS", (1,))
    monkeypatch.setenv("PYTHONPATH", str(flaxnets._path))
    found = bench_exported.measure(str(exported[0] / "model.stablehlo"), 1)
    (result,) = found["results"]
    assert 0 < result["file"]["median"] <= result["file"]["percentile_95"]
    assert 0 < result["model"]["median"] < 1
    assert result["threads"] == 1
    assert found["bytes"] == (exported[0] / "model.stablehlo").stat().st_size
    assert bench_exported.table(found).row_count == 3
