"""Run folders: a run never writes where another one lies."""

import json
import resource
import shutil

import pytest

from flaxnets.config import Data, Optimizer, Run
from flaxnets.errors import RunFolderError
from flaxnets.training.folder import check_facts, choose_folder, create_folder, discard_folder


@pytest.fixture
def run_of(tmp_path):
    return lambda **settings: Run(runs=tmp_path / "runs", **settings)


def create(run: Run):
    folder = choose_folder(run)
    create_folder(folder, run, {"class_names": ("a", "b")})
    return folder


def test_run_json_says_what_was_run(run_of):
    record = json.loads((create(run_of(seed=3)) / "run.json").read_text())
    assert record["settings"]["seed"] == 3
    assert record["class_names"] == ["a", "b"]
    assert {"flaxnets", "jax", "flax"} <= set(record["versions"])
    assert Run(**record["run"]).seed == 3


def test_folders_without_a_name_are_numbered(run_of):
    names = [create(run_of()).name for _ in range(3)]
    assert names == ["resnet50-flaxnets_digits", "resnet50-flaxnets_digits-2", "resnet50-flaxnets_digits-3"]
    assert create(run_of(arch="evilnet:resnet50", data=Data(name="a/b:1.0.0"))).name == "evilnet-resnet50-a-b-1.0.0"


def test_resume_finds_the_newest_folder_of_the_same_run(run_of):
    first, second = create(run_of(seed=1)), create(run_of(seed=2))
    assert choose_folder(run_of(seed=1, resume=True)) == first
    assert choose_folder(run_of(seed=2, resume=True)) == second
    assert choose_folder(run_of(seed=2, resume=True, name=second.name)) == second
    shutil.rmtree(first)
    assert choose_folder(run_of(seed=2, resume=True)) == second
    assert choose_folder(run_of(seed=1)).name == "resnet50-flaxnets_digits-3"


def test_a_named_run_is_not_started_twice(run_of):
    folder = create(run_of(name="mine"))
    with pytest.raises(RunFolderError) as error:
        choose_folder(run_of(name="mine"))
    assert str(error.value) == f"{folder} already holds this run; continue it by --resume, or choose another --name."


def test_of_two_runs_that_choose_the_same_folder_the_second_leaves_the_first_alone(run_of):
    first, second = run_of(seed=1), run_of(seed=2)
    folder = choose_folder(second)
    assert create(first) == folder
    before = (folder / "run.json").read_bytes()
    with pytest.raises(RunFolderError) as error:
        create_folder(folder, second, {"class_names": ("a", "b")})
    assert str(error.value) == f"Another process has just begun a run in {folder}; choose another --name."
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_another_runs_folder_is_refused_with_the_differences(run_of, resume):
    folder = create(run_of(name="mine", optimizer=Optimizer(peak_lr=0.5)))
    before = (folder / "run.json").read_bytes()
    with pytest.raises(RunFolderError) as error:
        choose_folder(run_of(name="mine", seed=7, resume=resume, optimizer=Optimizer(peak_lr=0.1)))
    assert str(error.value) == (
        f"{folder} holds another run: optimizer.peak_lr is 0.5 there and 0.1 here; seed is 0 there and 7 here. "
        "Choose another --name, or give that run's settings and --resume to continue it."
    )
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", '{"settings": []}', '{"settings": "x"}'])
def test_a_damaged_run_json_is_another_run(run_of, content):
    folder = create(run_of(name="mine"))
    (folder / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"holds another run: it has no readable run\.json\."):
        choose_folder(run_of(name="mine", resume=True))


def test_a_folder_that_is_no_run_is_left_alone(run_of, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        RunFolderError, match=r"holds another run: it has no readable run\.json\. Choose another --name"
    ):
        choose_folder(run_of(name="mine"))


def test_there_must_be_a_run_to_resume(run_of):
    with pytest.raises(
        RunFolderError, match=r"There is no run to resume in .*resnet50-flaxnets_digits; start it without"
    ):
        choose_folder(run_of(resume=True))


def test_an_unwritable_place_is_named(run_of, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(
        RunFolderError, match=r"Cannot write the run folder .*: Not a directory; choose another .*--runs"
    ):
        create(run_of())


def test_a_folder_that_a_full_disk_cut_short_is_taken_away_again(run_of):
    """A limit on the size of files stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        with pytest.raises(RunFolderError, match=r"Cannot write the run folder .*mine: File too large"):
            create(run_of(name="mine"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (run_of().runs / "mine").exists()
    create(run_of(name="mine"))


def test_a_link_to_nowhere_is_no_run_of_another_process(run_of):
    runs = run_of().runs
    runs.mkdir()
    (runs / "mine").symlink_to(runs / "nowhere")
    with pytest.raises(RunFolderError, match=r"Cannot write the run folder .*mine: File exists; choose another place"):
        create(run_of(name="mine"))


def test_data_with_other_classes_does_not_continue_a_run(run_of):
    folder = create(run_of(name="mine"))
    images = {"train_count": 9, "test_count": 3}
    check_facts(folder, {"class_names": ("a", "b"), **images})
    with pytest.raises(RunFolderError) as error:
        check_facts(folder, {"class_names": ("a", "c", "d"), **images})
    assert str(error.value) == (
        f"The data has other classes than the run in {folder} (new: c, d; gone: b); bring the data back as it was, or "
        "start a new run under another --name."
    )
    with pytest.raises(RunFolderError, match=r"new: none; gone: none"):
        check_facts(folder, {"class_names": ("b", "a"), **images})


def test_data_with_other_images_does_not_continue_a_run(run_of):
    folder = choose_folder(run := run_of(name="mine"))
    facts = {"class_names": ("a", "b"), "train_count": 1_000, "test_count": 3}
    create_folder(folder, run, facts)
    check_facts(folder, facts)
    with pytest.raises(RunFolderError) as error:
        check_facts(folder, {**facts, "train_count": 1_200})
    assert str(error.value) == (
        f"The data has 1,200 training images, and had 1,000 for the run in {folder}; bring the data back as it was, or "
        "start a new run under another --name."
    )
    with pytest.raises(RunFolderError, match=r"has 2 test images, and had 3 for the run"):
        check_facts(folder, {**facts, "test_count": 2})


def test_a_folder_of_a_run_that_did_not_begin_is_taken_away_and_nothing_else(run_of):
    folder = create(run_of(name="mine"))
    (folder / "notes.txt").write_text("of somebody else")
    discard_folder(folder)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    discard_folder(folder)  # no run.json: not a folder of a run
    assert folder.exists()


def test_a_folder_that_is_being_made_is_taken_away(run_of):
    folder = create(run_of(name="mine"))
    (folder / "class_indices.json").unlink()  # the second of its files
    discard_folder(folder)
    assert not folder.exists()
