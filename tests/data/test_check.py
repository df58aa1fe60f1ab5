"""Broken files are found before training, remembered, left out if that is wanted, and named if they break later."""

import json
import os
import subprocess

import pytest
from PIL import Image
from states import final_state

from flaxnets.config import Data
from flaxnets.data import check
from flaxnets.data.folder import FileExamples
from flaxnets.data.sources import open_sources
from flaxnets.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of 10 images, to train on, and 5, to test on; the cache of checks is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split, count in (("train", 10), ("val", 5)):
        for red, label in ((50, "cat"), (200, "dog")):
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 30), (red, number, 0)).save(place / f"{number}.jpg")
    return tmp_path / "data"


def break_some(folder):
    cat = folder / "train" / "cat"
    (cat / "0.jpg").write_bytes(b"")
    (cat / "1.jpg").write_bytes((cat / "1.jpg").read_bytes()[:-20])
    (cat / "2.jpg").write_bytes(b"<html>not found</html>")
    (cat / "gone.png").symlink_to("nowhere.png")
    (folder / "val" / "dog" / os.fsdecode(b"\xff\n.gif")).write_bytes(b"GIF89a")


def sources(folder):
    return open_sources(Data(name=f"folder:{folder}"))


def test_broken_files_are_listed_with_the_reason_and_the_fix(folder):
    break_some(folder)
    with pytest.raises(DataError) as error:
        check.usable(sources(folder), "stop")
    said = str(error.value)
    assert said.startswith(f"4 of 21 images cannot be used ({folder}/train/cat/0.jpg: the file is empty; ")
    assert "/1.jpg: it cannot be decoded: image file is truncated" in said
    assert "/2.jpg: it is no JPEG, PNG, WebP, BMP or GIF image" in said
    assert "/gone.png: No such file or directory" in said
    assert said.endswith("by --data.on-error skip; `flaxnets check-data` lists all.")


def test_broken_files_are_left_out_if_that_is_wanted(folder, caplog):
    break_some(folder)
    train, test = check.usable(sources(folder), "skip")
    assert (len(train.examples), len(test.examples)) == (17, 10)
    assert [record.getMessage() for record in caplog.records] == [
        "4 of 21 images cannot be used and are left out.",
        "1 of 11 images cannot be used and are left out.",
    ]
    assert check.usable([train, test], "stop") == [train, test]


def test_a_class_that_is_broken_as_a_whole_is_refused(folder):
    for file in (folder / "train" / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="All images of dog are broken; mend some, or remove the folder"):
        check.usable(sources(folder), "skip")


def test_a_file_is_checked_again_only_when_it_changes(folder, monkeypatch):
    decoded = []
    problem = check._problem
    monkeypatch.setattr(check, "_problem", lambda source, index: decoded.append(index) or problem(source, index))
    train, _ = sources(folder)
    assert check.broken(train) == {}
    assert len(decoded) == 20
    assert check.broken(train) == {}
    assert len(decoded) == 20
    assert isinstance(train.examples, FileExamples)
    with open(train.examples.files[3], "wb") as file:
        file.write(b"x")
    assert list(check.broken(train)) == [3]
    assert decoded[20:] == [3]
    for cache in (folder.parent / "cache").rglob("*.json"):
        cache.write_text("{")
    assert list(check.broken(train)) == [3]
    assert len(decoded) == 41


def test_a_file_that_could_not_be_read_for_a_while_is_sound_again(folder, monkeypatch):
    train, _ = sources(folder)

    def read(examples, index):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(FileExamples, "__getitem__", read)
        assert check.broken(train) == dict.fromkeys(range(20), "Permission denied")
    assert check.broken(train) == {}


def test_without_a_home_folder_there_is_no_cache(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user/cache")  # as "~" is, for a user without home
    monkeypatch.chdir(folder.parent)
    break_some(folder)
    assert len(check.broken(sources(folder)[0])) == 4
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_a_cache_that_cannot_be_written_changes_nothing(folder):
    (folder.parent / "cache").write_text("a file where the folder should be")
    break_some(folder)
    assert len(check.broken(sources(folder)[0])) == 4


def test_check_data_lists_and_counts(flaxnets, folder):
    break_some(folder)
    done = flaxnets("check-data", f"folder:{folder}", code=1)
    assert f"{folder}/train/cat/0.jpg: the file is empty\n" in done.stdout
    assert r"/val/dog/\udcff\n.gif: it is no JPEG" in done.stdout
    assert done.stdout.endswith("train: 21 images, 4 of them broken\ntest: 11 images, 1 of them broken\n2 classes\n")
    found = json.loads(flaxnets("check-data", f"folder:{folder}", "--json", code=1).stdout)
    assert found["images"] == {"train": 21, "test": 11}
    assert os.fsencode(found["broken"][4]["image"]) == os.fsencode(folder / "val" / "dog") + b"/\xff\n.gif"


def test_mistakes_in_what_to_check_are_mended_by_its_own_options(flaxnets, folder):
    assert flaxnets.refuses("check-data", f"folder:{folder}", "--holdout", 2).endswith("; change --holdout.")
    said = flaxnets.refuses("check-data", "flaxnets_digits", "--train", "training")
    assert "--train" in said
    assert "--data" not in said


def test_a_run_leaves_out_broken_files_and_names_one_that_vanishes(flaxnets, folder):
    break_some(folder)
    options = ["train", "--arch", "tiny_net", "--data.name", f"folder:{folder}", "--data.batch-size", 8]
    assert flaxnets.refuses(*options).startswith("4 of 21 images cannot be used")
    assert not (flaxnets.folder / "runs").exists()
    options += ["--data.on-error", "skip", "--steps", 1_000_000, "--evaluate-every", "4 epochs"]
    with subprocess.Popen(
        flaxnets.command(*options),
        cwd=flaxnets.folder,
        env=flaxnets.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch"):
                (folder / "train" / "cat" / "7.jpg").unlink()
                break
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "17 training and 10 test images, 2 classes" in "".join(lines)
    *warnings, error = said.splitlines()
    assert "4 of 21 images cannot be used and are left out." in warnings[0]
    assert error.startswith(
        f"Error: Cannot read {folder}/train/cat/7.jpg: No such file or directory; bring it back, or"
    )
    newest, state = final_state(flaxnets.folder / "runs" / "tiny_net-data")
    assert int(state["step"]) == newest >= 4
