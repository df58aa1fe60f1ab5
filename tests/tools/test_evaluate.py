"""`flaxnets evaluate`: the same figures as in training, however it is computed; ensembles; and what it refuses."""

import argparse
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from flaxnets.cli import main
from flaxnets.data.loading import load
from flaxnets.data.sources import open_sources
from flaxnets.errors import ConfigError
from flaxnets.tools.metrics import draw_confusion, draw_reliability, measure
from flaxnets.tools.outputs import check_new, write_folder
from flaxnets.tools.trained import add_network, open_networks
from flaxnets.training.log import read_metrics
from flaxnets.weights.trained import read_run


@pytest.fixture
def evaluate(trained_run, tmp_path, capsys):
    """Runs the command in this process, and returns what `--json` prints."""

    def run(*arguments):
        cache = ["--compilation-cache", str(trained_run.folder.parent / "compiled")]
        assert main(["evaluate", *map(str, arguments), "--json", *cache]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def weights(trained_run, tmp_path):
    """The run's weights as a file, and the options that it needs: other statistics, so that it answers otherwise."""
    safetensors.numpy.save_file(read_run(trained_run.folder).tensors(), tmp_path / "tiny.safetensors")
    return [tmp_path / "tiny.safetensors", "--arch", "tiny_net", "--image-size", 16]


def test_figures_are_those_of_the_training(trained_run, evaluate, flaxnets):
    [found] = evaluate(trained_run.folder, "--batch-size", 7)  # made 8, for 8 devices
    best = max(
        (line for line in read_metrics(trained_run.folder) if line["split"] == "test"), key=lambda m: m["accuracy"]
    )
    assert found["count"] == best["count"] == 80
    assert found["top1"] == pytest.approx(best["accuracy"])
    assert 0.3 < found["top1"] < 1
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-4)
    # Another batch size, on one device.
    [again] = json.loads(flaxnets("evaluate", trained_run.folder, "--batch-size", 33, "--json").stdout)
    assert again["confusion"] == found["confusion"]
    assert again["ece"] == pytest.approx(found["ece"], abs=1e-5)
    assert again["loss"] == pytest.approx(found["loss"], abs=1e-5)


@pytest.mark.parametrize("how", ["probability", "logit"])
def test_an_ensemble_averages_networks(trained_run, weights, evaluate, how):
    """Of a run and a file, whose logits are computed here one picture at a time."""
    found = evaluate(trained_run.folder, *weights, "--average", how)
    assert [each["name"] for each in found] == [str(trained_run.folder), str(weights[0]), "ensemble of 2"]
    parser = argparse.ArgumentParser()
    add_network(parser)
    networks = open_networks([str(trained_run.folder), str(weights[0])], parser.parse_args(list(map(str, weights[1:]))))
    source = open_sources(networks[0].data)[1]
    losses = []
    for index in range(80):
        logits = []
        for network in networks:
            pixels, label = load(source, index, network.transforms, np.random.default_rng(0))
            logits.append(network.model(((pixels / 255 - network.mean) / network.std).astype(np.float32)[None])[0])
        softmax = [np.exp(each) / np.exp(each).sum() for each in logits]
        both = np.sqrt(softmax[0] * softmax[1]) if how == "logit" else softmax[0] + softmax[1]
        losses.append(-np.log(both[label] / both.sum()))
    assert found[2]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found[2]["loss"] not in (found[0]["loss"], found[1]["loss"])


def test_views_are_averaged(trained_run, evaluate, tmp_path):
    """A picture that is its own mirror image answers alike both ways; of others, the mean is another answer."""
    options = ["--data.name", f"folder:{tmp_path}/even"]
    for name in read_run(trained_run.folder).class_names:
        (tmp_path / "even" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 8), np.uint8)
            Image.fromarray(np.hstack([pixels, pixels[:, ::-1]])).save(tmp_path / "even" / name / f"{number}.png")
    [plain], [flipped] = (evaluate(trained_run.folder, *options, *more) for more in ([], ["--flip"]))
    assert flipped["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    [plain], [flipped], [crops] = (evaluate(trained_run.folder, *more) for more in ([], ["--flip"], ["--crops", 5]))
    assert len({plain["loss"], flipped["loss"], crops["loss"]}) == 3


def test_other_data_can_be_given(trained_run, evaluate, tmp_path):
    for name in ("train", "val"):
        shutil.copytree(trained_run.pictures, tmp_path / "data" / name)
    [found] = evaluate(trained_run.folder, "--data.name", f"folder:{tmp_path}/data")
    assert found["count"] == 400


def test_files_and_tables_are_for_people(trained_run, tmp_path, capsys):
    line = ["evaluate", str(trained_run.folder), "--compilation-cache", str(trained_run.folder.parent / "compiled")]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "80 pictures" in said.out
    assert "hardest first" in said.out
    assert "taken for" in said.out
    assert "\x1b" not in said.out + said.err
    for name in ("reliability.png", "confusion.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == "PNG"
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())[0]["count"] == 80
    assert main([*line, "--out", str(tmp_path / "out")]) == 2
    assert "out exists already and is left as it is; choose another name." in capsys.readouterr().err


def test_names_that_are_no_text_are_drawn_as_text():
    """Folders may be called anything; `\\udcff` stands for a byte that is no text."""
    measured = measure(np.log(np.full((4, 2), 0.5)), np.array([0, 1, 0, 1]), ["bad\udcff", "two\nlines"])
    for png in (draw_confusion(measured), draw_reliability([("runs/bad\udcff", measured)])):
        assert png.startswith(b"\x89PNG")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^Cannot write .*/gone/out: No such file or directory; choose another place"
    ):
        write_folder(tmp_path / "gone" / "out", {"a": b"1"})
    with pytest.raises(KeyError):
        write_folder(tmp_path / "out", {"a": b"1"}, check=lambda folder: {}["refused"])
    assert not list(tmp_path.iterdir())
    write_folder(tmp_path / "out", {"a": b"1"})
    assert (tmp_path / "out" / "a").read_bytes() == b"1"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ConfigError, match=r"^Cannot write .*/out: you may not write in .*; choose another place\.$"):
        check_new(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["WEIGHTS"], "Only a run knows its data; add --data.name, such as folder:PATH."),
        (["RUN", "--data.name", "flaxnets_digits"], "knows other classes than the data have: 'eight' there, '0' here;"),
        (["RUN", "--data.name", "folder:two"], "knows 10 classes, and the data have 2; choose data with the network's"),
        (["RUN", "--data.holdout", "2"], "data.holdout cannot be '2': input should be less than 1; change --data.hold"),
        (["RUN", "--batch-size", "0"], "--batch-size cannot be 0; give a whole number above 0."),
        (["RUN", "--out", "no/such"], "Cannot write no/such: there is no folder no; make it, or choose another place."),
        (["NAN", "--data.name", "folder:DIGITS"], "gives logits that are not finite; give another checkpoint."),
    ],
)
def test_mistakes_are_refused(trained_run, weights, data_dir, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "eight"):
        shutil.copytree(trained_run.pictures / name, tmp_path / "two" / name)
    words = {"RUN": [str(trained_run.folder)], "WEIGHTS": [*map(str, weights)]}
    if "NAN" in options:
        tensors = safetensors.numpy.load_file(weights[0])
        tensors["classifier.bias"][0] = np.nan
        safetensors.numpy.save_file(tensors, "nan.safetensors")
        words["NAN"] = ["nan.safetensors", *map(str, weights[1:])]
        options = [option.replace("DIGITS", str(trained_run.pictures)) for option in options]
    line = [word for option in options for word in words.get(option, [option])]
    cache = ["--data.dir", str(data_dir), "--compilation-cache", str(trained_run.folder.parent / "compiled")]
    assert main(["evaluate", *line, *(cache if "RUN" in options else cache[2:])]) == 2
    assert message in capsys.readouterr().err
