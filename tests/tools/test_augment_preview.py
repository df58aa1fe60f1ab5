"""A picture of what the network sees: its pixels, its captions, and the file that it does not overwrite."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from flaxnets.config import parse_run
from flaxnets.data.images import open_images
from flaxnets.errors import FlaxnetsError
from flaxnets.tools.augment_preview import IMAGES, STEPS, caption, main, preview
from flaxnets.tools.grid import CAPTION, MARGIN


def test_a_cell_is_an_image_of_the_batch_that_device_0_trains_on(data_dir):
    run = parse_run(["--data.dir", str(data_dir), "--data.batch-size", "96", "--data.image-size", "30"])
    grid = np.asarray(Image.open(io.BytesIO(preview(run))))
    batches = open_images(run.data, run.augmentation, run.seed).train
    cell = (4 * 30 + CAPTION, 4 * 30 + MARGIN)
    assert grid.shape == (STEPS * cell[0] + MARGIN, IMAGES * cell[1] + MARGIN, 3)
    for step, place in ((0, 0), (3, 7)):
        top, left = MARGIN + step * cell[0], MARGIN + place * cell[1]
        shown = grid[top : top + 120 : 4, left : left + 120 : 4]
        batch = batches[step]
        assert batch
        np.testing.assert_array_equal(shown, np.repeat(batch["image"][place], 3, -1))
        assert (grid[top + 120 : top + 120 + CAPTION, left : left + 120] < 128).any()  # words


def test_mixtures_are_shown_as_the_step_makes_them(data_dir):
    options = ["--data.dir", str(data_dir), "--augmentation.crop", "none"]
    plain, mixed = (
        np.asarray(Image.open(io.BytesIO(preview(parse_run([*options, *more]))))).astype(int)
        for more in ([], ["--augmentation.mixup", "5"])
    )
    row = slice(MARGIN, MARGIN + 128)  # an eighth of 64 images for device 0: the first is mixed with the eighth
    first, last = (plain[row, MARGIN + place * 136 :][:, :128] for place in (0, 7))
    result = mixed[row, MARGIN:][:, :128]
    share = ((result - last) * (first - last)).sum() / ((first - last) ** 2).sum()
    assert 0.05 < share < 0.95
    np.testing.assert_allclose(result, share * first + (1 - share) * last, atol=1.01)


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        (("cat", "dog", 0.7), "70% cat\n+ 30% dog"),
        (("cat", "cat", 0.7), "cat"),
        (("cat", "dog", 1.0), "cat"),
        (("cat", "dog", 0.0), "0% cat\n+ 100% dog"),
    ],
)
def test_a_caption_names_the_mixture(shares, text):
    assert caption(*shares) == text


def test_the_command_writes_a_picture_once(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--data.dir", str(data_dir), "--augmentation.policy", "trivial_augment", "--out", "seen.png"]
    assert main(options, "") == 0
    assert capsys.readouterr().out == "The first 4 steps, a row each, are in seen.png.\n"
    written = (tmp_path / "seen.png").read_bytes()
    assert Image.open(io.BytesIO(written)).format == "PNG"
    with pytest.raises(FlaxnetsError) as error:
        main(options, "")
    assert str(error.value) == ("seen.png exists already and is left as it is; choose another name.")
    assert (tmp_path / "seen.png").read_bytes() == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--out", "none/seen.png"],
            "Cannot write none/seen.png: there is no folder none; make it, or choose another place.",
        ),
        (["--augmentation.mixd", "1"], "There is no option '--augmentation.mixd'. Did you mean --augmentation.mixup"),
        (["--experiment", "none.toml"], "Cannot read none.toml: No such file or directory"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(options, message, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlaxnetsError, match=re.escape(message)):
        main([*options, "--data.dir", str(data_dir)], "")
    assert not list(tmp_path.iterdir())
