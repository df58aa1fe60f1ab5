"""`flaxnets features`: arrays of stages and embeddings in files, and what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from pyarrow import parquet

import flaxnets
from flaxnets.cli import main
from flaxnets.data.geometry import Resize
from flaxnets.data.loading import transformed
from flaxnets.tools.trained import open_network
from flaxnets.weights.trained import read_run


@pytest.fixture
def features(trained_run, capsys, tmp_path, monkeypatch):
    """Runs the command in this process, in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, network=None):
        cache = ["--compilation-cache", str(trained_run.folder.parent / "compiled")]
        code = main(["features", str(network or trained_run.folder), *map(str, arguments), *cache])
        return code, *capsys.readouterr()

    return run


def expected(trained_run, files):
    """Feature maps of the only stage, and embeddings, computed by the model at once."""
    run = read_run(trained_run.folder)
    model = flaxnets.create("tiny_net", 10, weights=trained_run.folder)
    random = np.random.default_rng(0)
    pixels = np.stack([transformed(file.read_bytes(), 3, (Resize(16),), random) for file in files])
    maps = model.features(((pixels / 255 - run.mean) / run.std).astype(np.float32))[0]
    return np.asarray(maps), np.asarray(model.head(maps))


def test_features_are_those_of_the_model(trained_run, features, tmp_path):
    folder = trained_run.pictures / "nine"
    files = sorted(folder.glob("*.png"))
    maps, embeddings = expected(trained_run, files)
    (tmp_path / "broken.jpg").write_text("no picture")
    code, out, err = features(folder, "broken.jpg", "--stage", 0, "--spatial", "--out", "maps.npz", "--json")
    assert code == 1
    assert err == "broken.jpg  cannot be used: it is no JPEG, PNG, WebP, BMP or GIF image\n"
    assert json.loads(out)["shape"] == [len(files), 4, 4, 16]
    with np.load("maps.npz") as held:
        np.testing.assert_allclose(held["features"], maps, rtol=1e-4, atol=1e-5)
        assert held["pictures"].tolist() == list(map(str, files))
        assert set(held["labels"].tolist()) == {"nine"}
    assert features(folder, "--stage", 0, "--out", "means.npz")[0] == 0
    with np.load("means.npz") as held:
        np.testing.assert_allclose(held["features"], maps.mean((1, 2)), rtol=1e-4, atol=1e-5)
    code, out, _ = features(folder, "--out", "embeddings.parquet")
    assert (code, out) == (0, f"embeddings.parquet: features of {len(files)} pictures, 16 each\n")
    table = parquet.read_table("embeddings.parquet")
    np.testing.assert_allclose(np.stack(table["features"].to_numpy()), embeddings, rtol=1e-4, atol=1e-5)
    assert table["picture"].to_pylist() == list(map(str, files))
    assert json.loads(table.schema.metadata[b"shape"]) == [16]


def test_names_that_are_no_text_are_written_as_text(trained_run, features, tmp_path, monkeypatch):
    (tmp_path / "bad\udcff").mkdir()
    shutil.copy(next(trained_run.pictures.glob("nine/*.png")), tmp_path / "bad\udcff" / "a.png")

    def opened(*arguments, **keywords):
        network = open_network(*arguments, **keywords)
        return dataclasses.replace(network, class_names=("bad\udcff", *network.class_names[1:]))

    monkeypatch.setattr("flaxnets.tools.features.open_network", opened)
    assert features("bad\udcff", "--out", "a.parquet")[0] == 0
    assert parquet.read_table("a.parquet")["label"].to_pylist() == ["bad\\udcff"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "3", "--out", "a.npz"], "has no stage '3'; give --stage 0 or embedding."),
        (["--spatial", "--out", "a.npz"], "The embedding has no pixels; choose feature maps by --stage, or leave out"),
        (["--out", "a.csv"], "a.csv is neither .npz nor .parquet; give --out such a name."),
        (["--out", "there.npz"], "there.npz exists already and is left as it is; choose another name."),
        (["--out", "a.npz"], "None of 1 pictures can be used, so a.npz is not written; give others."),
    ],
)
def test_mistakes_are_refused(features, options, message, tmp_path):
    (tmp_path / "there.npz").write_text("mine")
    code, out, err = features("gone.png", *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["there.npz"]
    assert (tmp_path / "there.npz").read_text() == "mine"
