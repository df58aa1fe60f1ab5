"""`flaxnets explain`: its answers are the network's, its picture shows them, and mistakes are refused."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import flaxnets
from flaxnets.cli import main
from flaxnets.layers import CBAM, ConvNorm, GlobalMean, SqueezeExcite
from flaxnets.models import in_mode
from flaxnets.plugin import ImageClassifier
from flaxnets.tools.explain import Explanation, attention_heat, grid, overlay
from flaxnets.tools.trained import Trained


def opened(file) -> Image.Image:
    return Image.open(io.BytesIO(Path(file).read_bytes()))


@pytest.fixture(scope="module")
def pictures(trained_run):
    return [str(file) for file in sorted(trained_run.pictures.glob("*/*.png"))[::90]]


def test_answers_are_those_of_the_network_and_the_picture_has_a_panel_for_each(trained_run, pictures, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert main(["explain", str(trained_run.folder), *pictures, "--out", str(out), "--json", "--class", "three"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in rows] == pictures
    record = json.loads((trained_run.folder / "run.json").read_text())
    model = flaxnets.create("tiny_net", 10, weights=trained_run.folder)
    for row in rows:
        pixels = np.asarray(opened(row["image"]).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)) / 255
        images = (pixels[None] - np.asarray(record["mean"])) / np.asarray(record["std"])
        probabilities = np.asarray(jax.nn.softmax(model(images.astype(np.float32))))[0]
        assert row["class"] == record["class_names"][probabilities.argmax()]
        assert row["probability"] == pytest.approx(probabilities.max(), abs=0.02)  # another resize
        assert row["explained_class"] == "three"
        three = probabilities[record["class_names"].index("three")]
        assert row["explained_probability"] == pytest.approx(three, abs=0.02)
    width, height = opened(out).size
    assert width / height == pytest.approx(6 * 2.4 / (2 * 2.9), abs=0.01)  # five pairs, three beside each other


def test_the_table_names_picture_class_and_probability(trained_run, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(trained_run.folder), pictures[0]]) == 0
    first, last = capsys.readouterr().out.splitlines()
    name, _, answer = first.rpartition(": ")
    assert name == pictures[0]
    assert answer.split()[0] in json.loads((trained_run.folder / "run.json").read_text())["class_names"]
    assert last == "Where tiny_net looks is in explained.png."
    assert opened("explained.png").format == "PNG"


def test_heat_is_laid_over_the_picture_in_grey():
    pixels = np.full((2, 2, 3), [0, 90, 210], np.uint8)
    heat = np.array([[0, 0.5], [0.75, 1]])
    laid = overlay(pixels, heat).astype(int)
    assert np.ptp(laid[0, 0]) < 5  # cold: grey, a little darker
    assert 50 < laid[0, 0].max() < 100
    assert laid[1, 1, 0] > 200 > laid[1, 1, 2] + 30  # hot: bright and yellow
    assert laid[..., 0].ravel().tolist() == sorted(laid[..., 0].ravel())


def test_names_in_captions_are_text_and_may_lack_letters():
    found = Explanation(np.zeros((4, 4, 1), np.uint8), np.array([1.0]), 0, np.zeros((4, 4)))
    strange = ("$x^{2$ \U0001f600 花", "_{a}$")
    png = Image.open(io.BytesIO(grid([found], [strange], [{"花": np.ones((4, 4))}])))
    assert png.size[0] > 2 * png.size[1]  # three panels


def test_attention_of_the_last_layer_of_each_kind_in_each_stage():
    rngs = nnx.Rngs(0)
    cbam = CBAM(8, spatial_norm=False, rngs=rngs)
    stages = [[ConvNorm(3, 8, 3, rngs=rngs), SqueezeExcite(8, rngs=rngs), SqueezeExcite(8, rngs=rngs)], [cbam]]
    model = ImageClassifier(stem=lambda x: x, stages=stages, head=GlobalMean(), classifier=nnx.Linear(8, 2, rngs=rngs))
    model = in_mode(model, training=False)
    settings = {"image_size": 12, "view": None, "mean": (0.5,) * 3, "std": (0.2,) * 3, "class_names": ("a", "b")}
    network = Trained(name="run", arch="net", options={}, model=model, **settings)
    pixels = list(np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8))
    shown = attention_heat(network, pixels)
    assert len(shown) == 2
    layers = [caption.splitlines()[0] for caption in shown[0]]
    assert layers == ["stage 0: channels", "stage 1: channels", "stage 1: pixels"]

    images = (np.stack(pixels) / 255 - 0.5) / 0.2
    x = model.stages[0][0](images)
    x = model.stages[0][2](model.stages[0][1](x))
    x = model.stages[1][0].channel(x)
    weights = np.asarray(model.stages[1][0].spatial.weights(x))[1, ..., 0]
    caption, heat = list(shown[1].items())[2]
    assert caption.splitlines()[1] == f"weights {weights.min():.3f} to {weights.max():.3f}"
    np.testing.assert_allclose(heat, (weights - weights.min()) / np.ptp(weights), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{pictures}"], "{pictures} is a folder; give the pictures in it, such as {pictures}/*."),
        (["none.png"], "Cannot read none.png: No such file or directory; give the path of a picture."),
        (["broken.png"], "Cannot use broken.png: it is no JPEG, PNG, WebP, BMP or GIF image. Mend it, or leave it"),
        (["{picture}", "--class", "thre"], "has no class 'thre'. Did you mean three? Give --class one of eight, five,"),
        (["{picture}", "--stage", "1"], "There is no stage 1; choose one of the network's stages: 0."),
        (["{picture}", "--attention"], "tiny_net has no attention layers; leave out --attention."),
        (["{picture}", "--out", "broken.png"], "broken.png exists already and is left as it is; choose another name."),
        (
            ["{picture}", "--out", "no/a.png"],
            "Cannot write no/a.png: there is no folder no; make it, or choose another place.",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    options, message, trained_run, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = {"pictures": trained_run.pictures, "picture": pictures[0]}
    assert main(["explain", str(trained_run.folder), *(option.format(**names) for option in options)]) == 2
    output = capsys.readouterr()
    assert message.format(**names) in output.err
    assert output.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["broken.png"]
    assert (tmp_path / "broken.png").read_bytes() == b"no picture"


def test_a_picture_of_one_pixel_and_an_animation_are_pictures(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1, 1), "red").save("one.png")
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("white", "black")]
    frames[0].save("moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save("first.png")
    assert main(["explain", str(trained_run.folder), "one.png", "moves.gif", "first.png", "--json"]) == 0
    one, moves, first = json.loads(capsys.readouterr().out)
    assert 0 < one["probability"] <= 1
    assert {**moves, "image": ""} == {**first, "image": ""}
