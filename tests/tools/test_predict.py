"""`flaxnets predict`: answers, forms of output, broken pictures, and what it refuses."""

import csv
import io
import json
import shutil
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from flaxnets.cli import main
from flaxnets.data.loading import transformed
from flaxnets.errors import WeightsError
from flaxnets.tools.grid import CAPTION, MARGIN
from flaxnets.tools.inference import Seen, Stream
from flaxnets.tools.predict import _writer
from flaxnets.weights.trained import read_run


@pytest.fixture
def predict(trained_run, capsys):
    """Runs the command in this process: exit code, standard output, standard error."""

    def run(*arguments, network=None):
        cache = ["--compilation-cache", str(trained_run.folder.parent / "compiled"), "--batch-size", "16"]
        code = main(["predict", str(network or trained_run.folder), *map(str, arguments), *cache])
        return code, *capsys.readouterr()

    return run


def broken_pictures(folder):
    """Files that are no pictures, and two odd ones that are."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (1, 1), 200).save(folder / "one.png")
    (folder / "folder.png").mkdir()


def test_probabilities_are_those_of_the_network(trained_run, predict):
    """Of every file of a folder, in order, more than a batch of them."""
    code, out, err = predict(trained_run.pictures, "--json", "--top", 10)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    files = sorted(str(file) for file in trained_run.pictures.glob("*/*.png"))
    assert [line["picture"] for line in lines] == files
    run = read_run(trained_run.folder)
    import flaxnets

    model = flaxnets.create("tiny_net", 10, weights=trained_run.folder)
    from flaxnets.config import Augmentation
    from flaxnets.data.augmentation import eval_transforms

    view = eval_transforms(Augmentation(crop="none"), 16)
    chosen = [0, 15, 16, 399]
    encoded = [(trained_run.pictures.parent / files[i]).read_bytes() for i in chosen]
    pixels = np.stack([transformed(e, 3, view, np.random.default_rng(0)) for e in encoded])
    logits = np.asarray(model(((pixels / 255 - run.mean) / run.std).astype(np.float32)), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for index, row in zip(chosen, expected, strict=True):
        found = {each["name"]: each["probability"] for each in lines[index]["classes"]}
        assert found == pytest.approx(dict(zip(run.class_names, row, strict=True)), abs=1e-5)
        ranked = [each["probability"] for each in lines[index]["classes"]]
        assert ranked == sorted(ranked, reverse=True)
        assert lines[index]["label"] == lines[index]["picture"].split("/")[-2]


def probabilities(out):
    """By picture: of each class."""
    lines = map(json.loads, out.splitlines())
    return {line["picture"]: {each["name"]: each["probability"] for each in line["classes"]} for line in lines}


def test_probabilities_of_several_networks_are_averaged(trained_run, predict, tmp_path):
    """The second is the first without its last kernel: whatever it sees, its answer is the same."""
    run = read_run(trained_run.folder)
    tensors = dict(run.tensors())
    tensors["classifier.kernel"] = np.zeros_like(tensors["classifier.kernel"])
    safetensors.numpy.save_file(tensors, tmp_path / "blind.safetensors")
    (tmp_path / "classes.txt").write_text("\n".join(run.class_names))
    blind = [tmp_path / "blind.safetensors", "--arch", "tiny_net", "--classes", tmp_path / "classes.txt"]
    blind += ["--image-size", 16]
    pictures = [*sorted(trained_run.pictures.glob("*/*.png"))[:20], tmp_path / "classes.txt"]
    code, out, _ = predict(*pictures, "--json", "--top", 10, "--with", *blind)
    assert code == 1
    assert out.count("\n") == 21
    assert "is no JPEG" in out.splitlines()[-1]
    both = probabilities(out.rsplit("\n", 2)[0])
    first = probabilities(predict(*pictures[:-1], "--json", "--top", 10)[1])
    second = probabilities(predict(*pictures[:-1], "--json", "--top", 10, *blind[1:], network=blind[0])[1])
    assert len({tuple(sorted(each.items())) for each in second.values()}) == 1
    for picture, classes in both.items():
        mean = {name: (first[picture][name] + second[picture][name]) / 2 for name in classes}
        assert classes == pytest.approx(mean, abs=1e-6)


def test_networks_of_other_classes_are_not_averaged(trained_run, predict, tmp_path):
    safetensors.numpy.save_file(read_run(trained_run.folder).tensors(), tmp_path / "tiny.safetensors")
    file = tmp_path / "tiny.safetensors"
    code, out, err = predict("a.png", "--with", file, "--arch", "tiny_net", "--image-size", 16)
    assert (code, out) == (2, "")
    assert f"Error: {file} knows other classes than {trained_run.folder}; leave it out of --with." in err.replace(
        "\n", " "
    )


def test_names_come_from_standard_input_too(trained_run, predict, monkeypatch, tmp_path):
    files = sorted(trained_run.pictures.glob("t*/*.png"))[:3]
    odd = tmp_path / "two lines\n of name.png"
    shutil.copy(files[0], odd)
    names = "\r\n".join(map(str, files)) + "\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    code, out, _ = predict("-", odd, "--top", 2)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[3].startswith(str(odd).replace("\n", "\\n"))
    assert lines[0].split()[2] in read_run(trained_run.folder).class_names
    assert lines[0].count("%") == 2
    assert lines[0].split(None, 1)[1] == lines[3].rsplit(".png", 1)[1].strip()  # the same picture


def test_broken_pictures_are_reported_and_the_rest_goes_on(trained_run, predict, tmp_path):
    broken_pictures(tmp_path)
    names = ["empty.png", "animated.gif", "text.jpg", "gone.png", "one.png"]
    code, out, err = predict(*(tmp_path / name for name in names), "--json")
    assert code == 1
    lines = {line["picture"].split("/")[-1]: line for line in map(json.loads, out.splitlines())}
    assert list(lines) == names
    assert lines["empty.png"]["problem"] == "the file is empty"
    assert lines["text.jpg"]["problem"] == "it is no JPEG, PNG, WebP, BMP or GIF image"
    assert lines["gone.png"]["problem"] == "No such file or directory"
    for name in ("animated.gif", "one.png"):
        assert len(lines[name]["classes"]) == 5
        assert lines[name]["label"] is None
    assert err == ""
    code, out, _ = predict(tmp_path / "empty.png")
    assert (code, out) == (1, f"{tmp_path}/empty.png  cannot be used: the file is empty\n")


def test_csv_has_a_row_a_picture(trained_run, predict, tmp_path):
    broken_pictures(tmp_path)
    picture = next(iter(trained_run.pictures.glob("six/*.png")))
    code, out, _ = predict(picture, tmp_path / "empty.png", "--csv", "--top", 2)
    assert code == 1
    header, good, bad = csv.reader(io.StringIO(out))
    assert header == ["picture", "label", "class_1", "probability_1", "class_2", "probability_2", "problem"]
    assert good[:2] == [str(picture), "six"]
    assert float(good[3]) >= float(good[5]) > 0
    assert bad == [str(tmp_path / "empty.png"), "", "", "", "", "", "the file is empty"]


def test_names_that_are_no_text_are_written_as_text(capsys):
    network: Any = SimpleNamespace(class_names=("bad\udcff", "two\nlines"))
    for form in ("csv", "json", "text"):
        chosen: Any = SimpleNamespace(top=2, csv=form == "csv", json=form == "json")
        _writer(chosen, network)(Seen("a.png", None, 0, {"logits": np.zeros(2)}, None))
        out = capsys.readouterr().out
        assert "bad\\udcff" in out
        assert "two\\nlines" in out


class Computed(Stream):
    def start(self, images):
        return {"logits": images[:, 0, 0] / np.array([1, 0], np.float32)}


def test_answers_that_are_no_numbers_are_refused():
    stream = Computed("runs/a", 4, (1, 1, 2))
    with np.errstate(all="ignore"), pytest.raises(WeightsError) as error:
        list(stream.stream(["a.png"], lambda name: (np.ones((1, 1, 2), np.uint8), None)))
    assert str(error.value) == "runs/a gives logits that are not finite; give another checkpoint."


def test_a_plot_shows_the_pictures(trained_run, predict, tmp_path):
    pictures = sorted(trained_run.pictures.glob("*/*.png"))[:6]
    code, *_ = predict(*pictures, "--plot", tmp_path / "grid.png")
    assert code == 0
    with Image.open(tmp_path / "grid.png") as grid:
        cells = np.asarray(grid)
    assert cells.shape == (2 * (112 + CAPTION) + MARGIN, 4 * (112 + MARGIN) + MARGIN, 3)
    with Image.open(pictures[5]) as picture:
        own = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    shown = cells[MARGIN + 152 :, MARGIN + 120 :][3:112:7, 3:112:7, 0]
    assert abs(shown - own).mean() < 2
    assert (cells[MARGIN + 152 + 112 :, MARGIN + 120 : MARGIN + 232] < 128).any()  # words
    code, _, err = predict(pictures[0], "--plot", tmp_path / "grid.png")
    assert code == 2
    assert "grid.png exists already and is left as it is; choose another name." in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "a.png"], "There is no run folder, weights file or architecture 'none'. Give one that exists."),
        (["resnet18", "a.png"], "resnet18 is an architecture without weights, whose answers would be random; give a"),
        (["RUN", "."], "There is no image in .; images end in .jpg, .jpeg, .png, .webp, .bmp, .gif. Give another."),
        (["RUN", "a.png", "--top", "0"], "--top cannot be 0; give a whole number above 0."),
        (["RUN", "a.png", "--plot", "no/a.png"], "Cannot write no/a.png: there is no folder no; make it, or choose"),
    ],
)
def test_mistakes_are_refused(trained_run, predict, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = trained_run.folder if arguments[0] == "RUN" else arguments[0]
    code, out, err = predict(*arguments[1:], network=network)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {message}")
