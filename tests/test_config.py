"""Configuration: defaults, experiment files, flags that override them, and what is said of mistakes."""

from pathlib import Path

import pydantic
import pytest

from flaxnets.config import Run, load_experiment, option_names, parse_run, settings
from flaxnets.errors import ConfigError
from flaxnets.part import in_steps

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def experiment(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "mine.toml"
        file.write_text(text)
        return file

    return write


def test_the_default_run_is_the_digits_experiment():
    assert settings(load_experiment(EXPERIMENTS / "resnet50_digits.toml")) == settings(Run())


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_experiment_is_valid_and_a_lab_note(file):
    run = load_experiment(file)
    assert run.experiment == file
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(f"--experiment experiments/{file.name}" in line for line in header)


def test_options_override_the_experiment(experiment):
    file = experiment("epochs = 3.0\n[data]\nbatch_size = 8\n[optimizer]\npeak_lr = 0.5\n")
    run = parse_run(["--experiment", str(file), "--data.batch-size", "16", "--arch", "resnet18"])
    assert (run.epochs, run.data.batch_size, run.optimizer.peak_lr, run.arch) == (3.0, 16, 0.5, "resnet18")
    assert parse_run([f"--experiment={file}"]).data.batch_size == 8


def test_options_of_the_architecture_keep_their_types(experiment):
    file = experiment('[options]\nwidth = 0.5\nstem = "small"\n')
    assert load_experiment(file).options == {"width": 0.5, "stem": "small"}
    assert parse_run(["--options", "width", "0.5", "stem", "small", "depth", "3"]).options == {
        "width": 0.5, "stem": "small", "depth": 3
    }  # fmt: skip
    assert settings(load_experiment(file))["options.width"] == 0.5
    kept = parse_run(["--experiment", str(file), "--options", "width", "0.25", "dropout", "0.1"])
    assert kept.options == {"width": 0.25, "stem": "small", "dropout": 0.1}


def test_a_run_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Run().epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_settings_leave_out_what_changes_no_result():
    elsewhere = parse_run(["--name", "x", "--runs", "/tmp/y", "--resume", "--data.dir", "/tmp/z"])
    assert settings(elsewhere) == settings(Run())
    assert settings(parse_run(["--seed", "1"])) != settings(Run())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ecpochs = 3", "mine.toml: There is no setting 'ecpochs'. Did you mean epochs?"),
        ("[data]\nbatchsize = 3", "mine.toml: There is no setting 'data.batchsize'. Did you mean data.batch_size"),
        ("[optimiser]\npeak_lr = 3", "mine.toml: There is no setting 'optimiser'."),
        ("epochs = 0", "mine.toml: epochs cannot be 0: input should be greater than 0; change --epochs."),
        ("[data]\nimage_size = 1.5", "data.image_size cannot be 1.5: input should be a valid integer"),
        ("epochs = ", "mine.toml is not TOML: Invalid value"),
        ("epochs = inf", "mine.toml: epochs cannot be inf: input should be a finite number; change --epochs."),
        ("experiment = 'a.toml'", "An experiment cannot start from another one; remove its key `experiment`."),
        ("options = { width = [1] }", "options.width cannot be [1]: input should be a valid integer"),
        ("seed = " + 5_000 * "[", "mine.toml is not TOML: maximum recursion depth exceeded"),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_fix(experiment, text, message):
    with pytest.raises(ConfigError) as error:
        load_experiment(experiment(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read .*none\.toml: No such file.*--experiment"):
        load_experiment(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "epochs cannot be 0.0: input should be greater than 0; change --epochs."),
        (["--data.batch-size", "-1"], "data.batch_size cannot be -1: input should be greater than 0"),
        (["--ecpochs", "3"], "There is no option '--ecpochs'. Did you mean --epochs?"),
        (["--batch-size", "3"], "There is no option '--batch-size'. Did you mean --data.batch-size"),
        (["--epochs", "1e300"], "epochs cannot be 1e+300: input should be less than or equal to 1000000000"),
        (["--steps", "99999999999"], "steps cannot be 99999999999: input should be less than or equal to 2147483647"),
        (["--optimizer.peak-lr", "inf"], "optimizer.peak_lr cannot be inf: input should be a finite number"),
        (["--augmentation.mixup", "nan"], "augmentation.mixup cannot be nan: input should be a finite number"),
        (["--schedule.warmup", "1e400 steps"], "schedule.warmup cannot be '1e400 steps': value error, give at most"),
        (["--name", ""], "name cannot be '': value error, a run's name is one folder"),
        (["--name", "a\nb"], "name cannot be 'a\\nb': value error, a run's name is one folder"),
        (["--name", "a/b"], "name cannot be 'a/b': value error, a run's name is one folder, without slashes"),
    ],
)
def test_a_mistake_in_an_option_names_the_option_and_the_fix(options, message):
    with pytest.raises(ConfigError) as error:
        parse_run(options)
    assert message in str(error.value)


def test_durations_are_written_in_one_way():
    for text in ("1e-05 epochs", "0.00001 epoch", "1e-05 epochs "):
        assert parse_run(["--log-every", text]).log_every == "1e-05 epochs"
    assert parse_run(["--log-every", "1_0e2 step"]).log_every == "1000 steps"


def test_a_duration_beyond_all_counting_is_the_longest_run():
    assert in_steps("1e15 epochs", steps_per_epoch=1e300, batch_size=1) == 2**31 - 1


def test_option_names_are_those_of_experiment_files():
    assert {"arch", "data.batch_size", "optimizer.peak_lr"} <= set(option_names())
