"""Training as a user sees it: `python -m flaxnets train` in processes of its own, on real digits."""

import json
import re
import shlex
import signal

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from flaxnets_tiny import tiny_net
from states import final_state, state_of

from flaxnets.training.log import read_metrics
from flaxnets.weights.trained import read_run

SHORT = [
    "train",
    "--arch",
    "tiny_net",
    "--steps",
    12,
    "--schedule.warmup",
    "0.1 epochs",
    "--evaluate-every",
    "0.25 epochs",
]


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_run_trains_evaluates_and_fills_its_folder(flaxnets):
    done = flaxnets(*SHORT, "--log-every", "2 steps")
    folder = flaxnets.folder / "runs" / "tiny_net-flaxnets_digits"
    assert "\x1b" not in done.stdout  # no terminal, no colours
    assert re.search(
        r"tiny_net, [\d,]+ parameters, on flaxnets_digits: 1,442 training and 355 test images", done.stdout
    )
    assert re.search(r"first step \(1\) after [\d.]+ s", done.stdout)
    assert re.search(r"epoch +0\.3 +step +6 +loss [\d.]+ +test loss [\d.]+ +test accuracy [\d.]+%", done.stdout)
    assert re.search(r"best test accuracy +[\d.]+% \(step (6|12)\)", done.stdout)
    assert done.stderr == ""
    record = json.loads((folder / "run.json").read_text())
    assert record["settings"]["steps"] == 12
    assert record["class_names"] == list("0123456789")
    metrics = read_metrics(folder)
    trained = [line for line in metrics if line["split"] == "train"]
    assert [line["step"] for line in trained] == [2, 4, 6, 8, 10, 12]
    assert {"loss", "accuracy", "gradient_norm", "images_per_second", "data_wait", "memory", "skipped"} <= trained[
        0
    ].keys()
    # A batch of 64 has a fourth of the peak for 256; the warm-up takes the first 2 of 12 steps; then the cosine.
    expected = [0.0125 * (1 + np.cos(np.pi * max(0, line["step"] - 3) / 10)) for line in trained]
    assert [line["learning_rate"] for line in trained][1:] == pytest.approx(expected[1:], rel=1e-5)
    tested = [line for line in metrics if line["split"] == "test"]
    assert [(line["step"], line["count"]) for line in tested] == [(6, 355), (12, 355)]
    assert list((folder / "tensorboard").glob("events*"))
    assert final_state(folder)[0] == 12


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others(flaxnets):
    states = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        flaxnets(*SHORT, "--name", name, "--seed", seed)
        states[name] = final_state(flaxnets.folder / "runs" / name)[1]
    assert_same_state(states["a"], states["b"])
    assert (states["a"]["params/classifier/kernel"] != states["c"]["params/classifier/kernel"]).all()


def test_a_run_starts_from_given_weights(flaxnets):
    model = tiny_net.build(num_classes=7, rngs=nnx.Rngs(5))
    given = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    weights = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in given}
    safetensors.numpy.save_file(weights, flaxnets.folder / "tiny.safetensors")
    # The first step of a warm-up has a rate of 0: what was given is still there after it.
    options = ["train", "--arch", "tiny_net", "--steps", 2, "--data.channels", 3, "--schedule.warmup", "0.04 epochs"]
    options += ["--data.image-size", 32]
    done = flaxnets(*options, "--weights", "tiny.safetensors", "--evaluate-every", "0.04 epochs")
    assert "The weights are of other classes" in done.stderr
    state = state_of(flaxnets.folder / "runs" / "tiny_net-flaxnets_digits", step=1)
    for name, array in weights.items():
        if name.endswith(("kernel", "scale", "bias")) and "classifier" not in name:
            np.testing.assert_array_equal(state["params/" + name.replace(".", "/")], array)
    for dry in ([], ["--dry-run"]):
        said = flaxnets.refuses(*options, "--weights", "none.safetensors", *dry)
        assert said.startswith("Cannot read none.safetensors: No such file")
    (flaxnets.folder / "tiny.safetensors").unlink()  # the run has them now
    resumed = [*options, "--weights", "tiny.safetensors", "--evaluate-every", "0.04 epochs", "--resume"]
    assert "all 2 steps are done, in runs/tiny_net-flaxnets_digits" in flaxnets(*resumed).stdout


def test_a_second_run_starts_from_the_averages_of_the_first_and_trains_its_last_parts(flaxnets):
    done = flaxnets(*SHORT, "--ema", 0.9, "--accumulate", 2, "--loss", "binary", "--name", "first")
    shown = re.findall(r"test accuracy ([\d.]+)%  EMA ([\d.]+)%", done.stdout)
    folder = flaxnets.folder / "runs"
    tested = [line for line in read_metrics(folder / "first") if line["split"] == "test"]
    assert shown == [(f"{line['accuracy']:.2%}"[:-1], f"{line['ema_accuracy']:.2%}"[:-1]) for line in tested]
    best = max(tested, key=lambda line: (line["ema_accuracy"], line["step"]))
    assert f"{best['ema_accuracy']:.2%} (step {best['step']})" in done.stdout
    second = [*SHORT[:-4], "--schedule.warmup", "0 steps", "--weights", "runs/first", "--freeze", "stages"]
    flaxnets(*second, "--name", "second")
    before = read_run(folder / "first").tensors()
    after = read_run(folder / "second").tensors()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor != after[name]).any() == name.startswith("classifier."), name
    average, last = (
        final_state(folder / "first")[1][place + "stem/convolution/kernel"] for place in ("average/params/", "params/")
    )
    assert (average != last).any()


LONG = ["train", "--arch", "tiny_net", "--steps", 60, "--evaluate-every", "10 epochs"]
AUGMENTED = ["--augmentation.crop", "random_resized", "--augmentation.colour-jitter", 0.4, 0.4, 0, 0]
AUGMENTED += ["--augmentation.policy", "rand_augment", "--augmentation.erase", 0.2, "--augmentation.mixup", 0.2]
AUGMENTED += ["--augmentation.cutmix", 1, "--augmentation.mix-by", "pair", "--augmentation.repeats", 3]


@pytest.mark.parametrize(("number", "devices", "more"), [(signal.SIGINT, 1, []), (signal.SIGTERM, 8, AUGMENTED)])
def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(flaxnets, number, devices, more):
    run = flaxnets.start(*LONG, *more, *flaxnets.places, devices=devices)
    run.wait_for("first step")
    run.send(number)
    run.end(128 + number)
    stopped, command = re.search(
        rf"^Stopped by {number.name} after step (\d+), which is saved\. Resume by: (.*)$", run.stdout, re.MULTILINE
    ).groups()
    assert int(stopped) < 60
    folder = flaxnets.folder / "runs" / "tiny_net-flaxnets_digits"
    assert final_state(folder)[0] == int(stopped)

    program, *arguments = shlex.split(command)
    assert program == "flaxnets"
    resumed = flaxnets.start(*arguments, devices=devices).end()
    assert f"steps {int(stopped) + 1} to 60" in resumed.stdout
    flaxnets(*LONG, *more, "--name", "undisturbed", devices=devices)
    undisturbed = flaxnets.folder / "runs" / "undisturbed"
    assert_same_state(final_state(folder)[1], final_state(undisturbed)[1])

    def deterministic(run_folder):
        return [
            {name: value for name, value in line.items() if name not in ("images_per_second", "data_wait", "memory")}
            for line in read_metrics(run_folder)
            if line["step"] != int(stopped) and not (int(stopped) < line["step"] <= int(stopped) + 5)
        ]

    assert deterministic(folder) == deterministic(undisturbed)


def test_eight_devices_train_with_synchronised_batch_norm_in_bfloat16(flaxnets):
    done = flaxnets(*SHORT, "--batch-norm", "synchronised", "--dtype", "bfloat16", devices=8)
    assert "8 x cpu" in done.stdout


def test_a_finished_run_that_is_resumed_says_so_and_changes_nothing(flaxnets):
    flaxnets(*SHORT)
    folder = flaxnets.folder / "runs" / "tiny_net-flaxnets_digits"
    before = final_state(folder)[1], (folder / "metrics.jsonl").read_bytes()
    done = flaxnets(*SHORT, "--resume")
    assert "best test accuracy" in done.stdout
    assert_same_state(final_state(folder)[1], before[0])
    assert (folder / "metrics.jsonl").read_bytes() == before[1]


def test_a_run_does_not_continue_with_more_images(flaxnets):
    def write(count: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16), np.uint8)
        np.savez(flaxnets.folder / "some.npz", images=pixels, labels=np.arange(count) % 2)

    write(40)
    options = ["train", "--arch", "tiny_net", "--steps", 2, "--data.name", "arrays:some.npz", "--data.batch-size", 8]
    flaxnets(*options, "--schedule.warmup", "0 steps")
    write(60)
    assert flaxnets.refuses(*options, "--schedule.warmup", "0 steps", "--resume") == (
        "The data has 48 training images, and had 32 for the run in runs/tiny_net-some; bring the data back as it was, "
        "or start a new run under another --name."
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(flaxnets):
    said = flaxnets.refuses(*SHORT, "--optimizer.peak-lr", 1e30, "--evaluate-every", "0.04 epochs")
    step, kept = re.fullmatch(
        r"(?:The test loss is (?:nan|inf) after|Loss or gradient were not finite in 10 steps in a row, up to) "
        r"step (\d+); the checkpoint of step (\d+) is "
        r"good\. Start anew under another --name with a lower --optimizer\.peak-lr or a longer "
        r"--schedule\.warmup\.",
        said,
    ).groups()
    newest, state = final_state(flaxnets.folder / "runs" / "tiny_net-flaxnets_digits")
    assert newest == int(kept) < int(step)
    assert all(np.isfinite(array).all() for array in state.values())


def test_a_damaged_newest_checkpoint_is_set_aside_with_a_warning(flaxnets):
    flaxnets(*SHORT)
    folder = flaxnets.folder / "runs" / "tiny_net-flaxnets_digits"
    expected = final_state(folder)[1]
    for file in (folder / "checkpoints" / "12" / "default").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    done = flaxnets(*SHORT, "--resume")
    assert "Checkpoint 12 is damaged, now damaged-12, and the one before is used" in done.stderr
    assert "steps 7 to 12" in done.stdout
    assert_same_state(final_state(folder)[1], expected)


def test_mistakes_are_refused_before_anything_is_written(flaxnets):
    for options, message in [
        (["--arch", "resnet5"], "No architecture named 'resnet5'. Did you mean"),
        (["--data.name", "cifar11"], "No data set named 'cifar11'. Did you mean"),
        (["--epochs", 0], "epochs cannot be 0.0: input should be greater than 0; change --epochs."),
        (["--experiment", "none.toml"], "Cannot read none.toml: No such file or directory; give a TOML file"),
        (["--schedule.warmup", "99 epochs"], "leaves nothing of a run of 12; lower --schedule.warmup"),
        (["--resume"], "There is no run to resume in runs/tiny_net-flaxnets_digits; start it without --resume."),
        (["--learning-rate", 1], "There is no option '--learning-rate'."),
    ]:
        assert message in flaxnets.refuses(*SHORT, *options)
    message = flaxnets.refuses(*SHORT, "--data.batch-size", 30, devices=8)
    assert message.endswith("use --data.batch-size 24 or 32.")
    assert not (flaxnets.folder / "runs").exists()


def test_an_unwritable_folder_is_refused(flaxnets):
    (flaxnets.folder / "runs").write_text("a file")
    said = flaxnets.refuses(*SHORT)
    assert said.startswith("Cannot write the run folder runs/tiny_net-flaxnets_digits: ")
    assert said.endswith("choose another place by --runs.")
    assert (flaxnets.folder / "runs").read_text() == "a file"
