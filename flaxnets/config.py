"""What a run is: frozen models, their defaults, and the experiment files (TOML) and options that fill them in."""

import argparse
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from flaxnets.errors import ConfigError, did_you_mean
from flaxnets.part import MOST_STEPS, Interval, Part
from flaxnets.recipe import BatchNorm, Optimizer, Schedule

# What may differ between a run and its continuation: none of it changes what is computed.
NO_RESULT = frozenset(
    {"experiment", "runs", "name", "resume", "keep", "log_every", "compilation_cache", "non_finite", "dry_run"}
) | {
    "data.dir",
    "data.workers",
    "distributed.coordinator",
    "distributed.num_processes",
    "distributed.process_id",
}


class Data(Part):
    """Images, and how they reach the network."""

    section = "data"

    name: str = "flaxnets_digits"
    """Data set: `folder:PATH` with a folder a class, `idx:PATH` with MNIST's four files, `arrays:FILE.npz`, or a name
    of TensorFlow Datasets, prepared as array_record (`NAME`, `NAME/CONFIG` or `NAME:VERSION`)."""
    dir: Path | None = None
    """Where TensorFlow Datasets are prepared and read; default: their own folder."""
    train: str = "train"
    """Split to train on: of TensorFlow Datasets, such as `train[:90%]`, or a folder in PATH."""
    test: str = "test"
    """Split to test on; in a folder, `val` serves as well."""
    holdout: float = pydantic.Field(default=0.2, gt=0, lt=1)
    """Share of each class to test on, where a folder or an .npz file has no part for that."""
    on_error: Literal["stop", "skip"] = "stop"
    """Broken image files in a folder: stop and list them, or train without them."""
    workers: int | None = pydantic.Field(default=None, gt=0, le=1024)
    """Threads that decode images; default: the cores, up to 16."""
    batch_size: int = pydantic.Field(default=64, gt=0)
    """Images a step, over all devices."""
    image_size: int | None = pydantic.Field(default=None, gt=0)
    """Height and width in pixels that images are resized to; default: 32, or with --weights as those were trained."""
    test_image_size: int | None = pydantic.Field(default=None, gt=0)
    """The same for test images; default: as for training. Some recipes train on smaller ones (arXiv:1906.06423)."""
    channels: Literal[1, 3] | None = None
    """1 for grey images, 3 for colour; default: as the data set has them."""


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("give two numbers above 0, the smaller one first")
    return limits


Probability = Annotated[float, pydantic.Field(ge=0, le=1)]
Amount = Annotated[float, pydantic.Field(ge=0)]


class Augmentation(Part):
    """How training images are changed at random; `flaxnets augment-preview` shows it."""

    section = "augmentation"

    crop: Literal["pad", "random_resized", "none"] = "pad"
    """Training images are resized and shifted (arXiv:1512.03385), or a random part of each is resized
    (arXiv:1409.4842; tests then show the central part), or they are only resized."""
    shift: Probability = 1 / 8
    """Share of the side by which a padded image is shifted at the most; the paper's is 4 of 32 pixels."""
    crop_area: Annotated[tuple[Amount, Probability], pydantic.AfterValidator(_ascending)] = (0.08, 1.0)
    """Share of the image that a random part covers."""
    crop_ratio: Annotated[tuple[Amount, Amount], pydantic.AfterValidator(_ascending)] = (3 / 4, 4 / 3)
    """Width / height of a random part."""
    centre_crop: float = pydantic.Field(default=0.875, gt=0, le=1)
    """Share of the shorter side that the central part covers."""
    flip: bool | None = None
    """Mirror every other image from left to right; default: where that keeps the data set's labels."""
    colour_jitter: tuple[Amount, Amount, Amount, Annotated[float, pydantic.Field(ge=0, le=0.5)]] = (0.0, 0.0, 0.0, 0.0)
    """How far brightness, contrast, saturation (x: a factor of 1 - x to 1 + x) and hue (at most .5) may change."""
    policy: Literal["none", "rand_augment", "trivial_augment", "auto_augment"] = "none"
    """RandAugment (arXiv:1909.13719), TrivialAugment wide (arXiv:2103.10158), or AutoAugment's policy for ImageNet
    (arXiv:1805.09501)."""
    operations: int = pydantic.Field(default=2, gt=0)
    """RandAugment: operations an image."""
    magnitude: float = pydantic.Field(default=9.0, ge=0, le=10)
    """RandAugment: how far each operation goes, from 0 (nothing) to 10."""
    magnitude_deviation: Amount = 0.0
    """RandAugment: standard deviation of the magnitude."""
    operation_probability: Probability = 1.0
    """RandAugment: probability of each operation."""
    erase: Probability = 0.0
    """Share of the images in which a random box is painted in the mean colour (arXiv:1708.04896)."""
    mixup: Amount = 0.0
    """alpha of mixup (arXiv:1710.09412), which adds pairs of images and of labels; 0 for none."""
    cutmix: Amount = 0.0
    """alpha of CutMix (arXiv:1905.04899), which pastes a box of one image into another; 0 for none."""
    mix_probability: Probability = 1.0
    """Probability of mixing at all."""
    cutmix_probability: Probability = 0.5
    """Where there are both mixup and CutMix: probability of the latter."""
    mix_by: Literal["batch", "pair"] = "batch"
    """Draw how to mix once a batch, or for each pair of images."""
    repeats: int = pydantic.Field(default=1, gt=0)
    """Put each image into a batch this often, each time changed anew (arXiv:1901.09335); an epoch keeps its length."""


class Distributed(Part):
    """Which of several processes this is; default: found from SLURM, Open MPI, Kubernetes or a TPU pod, or alone."""

    section = "distributed"

    coordinator: str | None = None
    """HOST:PORT of the first process."""
    num_processes: int | None = pydantic.Field(default=None, gt=0)
    """How many there are."""
    process_id: int | None = pydantic.Field(default=None, ge=0)
    """Number of this one, from 0 on."""


class Run(Part):
    """Train an image classifier, test it as it goes, and keep its checkpoints in a run folder."""

    arch: str = "resnet50"
    """Architecture, see `flaxnets list`."""
    options: dict[str, int | float | bool | str] = pydantic.Field(default_factory=dict)
    """Options of the architecture, such as `width 0.5`; `flaxnets info ARCH` lists them."""
    weights: Path | None = None
    """Start from these weights: another run's folder, or a .safetensors, .pth or .pt file; a classifier of other
    classes starts anew."""
    epochs: float = pydantic.Field(default=15.0, gt=0, le=1e9)
    """Passes over the training images."""
    steps: int | None = pydantic.Field(default=None, gt=0, le=MOST_STEPS)
    """Optimiser steps; in place of epochs."""
    label_smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters are float32 always."""
    loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    """Cross-entropy over the classes, or the sum of each class's own, to which all that were mixed are present, as in
    arXiv:2110.00476."""
    batch_norm: BatchNorm = "per_device"
    """Whose images batch norm sees: each device's, those of all devices, or none: it keeps its running averages."""
    freeze: tuple[str, ...] = ()
    """Parts that stay as they are, with all before them: `stem`, `stages.0`, ..., `stages` for all of these, `head`."""
    accumulate: int = pydantic.Field(default=1, gt=0)
    """Compute each batch in so many parts, one after the other, to save memory."""
    rematerialise: bool = False
    """Keep only the feature maps between stages, and compute those inside again for the gradient: less memory on GPU
    and TPU (XLA undoes it on CPU)."""
    ema: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Keep a moving average of parameters and batch statistics, of which a step leaves this share, such as 0.9999; it
    is tested beside them, and chooses the best checkpoint. 0 for none."""
    non_finite: int = pydantic.Field(default=10, gt=0)
    """Stop after so many steps in a row whose loss or gradient is not finite; until then each is skipped."""
    evaluate_every: Interval = "1 epoch"
    """From one evaluation to the next, such as `500 steps`; each saves a checkpoint."""
    keep: int = pydantic.Field(default=2, gt=0)
    """Newest checkpoints to keep; the best is kept besides."""
    log_every: Interval = "5 steps"
    """From one line of metrics.jsonl to the next."""
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31)
    """Of initial values, order and augmentation; the same seed gives the same run."""
    experiment: Path | None = None
    """TOML file to start from; other options override what it says."""
    runs: Path = Path("runs")
    """Folder of the run folders."""
    name: str | None = None
    """Run folder; default: ARCH-DATASET, numbered if that exists."""
    resume: bool = False
    """Continue a run from its newest checkpoint."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    compilation_cache: Path = Path("~/.cache/flaxnets/compilation")
    """Where compiled programs are kept, so that the next start is fast."""
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    distributed: Distributed = Distributed()

    @pydantic.field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name != Path(name).name or name in ("", ".", "..") or not name.isprintable()):
            raise ValueError("a run's name is one folder, without slashes and line ends")
        return name


def option_names(part: type[Part] = Run, prefix: str = "") -> list[str]:
    """Every setting as in experiment files, such as `data.batch_size`."""
    names = []
    for name, field in part.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Part):
            names += option_names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def load_experiment(file: Path) -> Run:
    """The run that an experiment file describes. Raises ConfigError, naming the file, for whatever is wrong in it."""
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
        if "experiment" in settings:
            raise ConfigError("An experiment cannot start from another one; remove its key `experiment`.")
        return Run(**settings, experiment=file)
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}; give a TOML file to --experiment.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}; mend that line.") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def parse_run(options: list[str]) -> Run:
    """The run that command-line options describe. Raises ConfigError for one that does not exist or does not fit."""
    import tyro

    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--experiment", type=Path)
    try:
        experiment = chooser.parse_known_args(options)[0].experiment
    except argparse.ArgumentError:  # no file after it: tyro says so below
        experiment = None
    start = load_experiment(experiment) if experiment else Run()
    bare = start.model_copy(update={"options": {}})  # tyro would take no keys but those of a dictionary that has some
    run, unknown = tyro.cli(Run, args=options, default=bare, prog="flaxnets train", return_unknown_args=True)
    if unknown:
        known = ["--" + option.replace("_", "-") for option in option_names()]
        raise ConfigError(
            f"There is no option {unknown[0]!r}.{did_you_mean(unknown[0], known)} `flaxnets train --help` lists all."
        )
    return run.model_copy(update={"options": {**start.options, **run.options}})


def settings(run: Run) -> dict[str, Any]:
    """What decides the result of a run, flat: `{"data.batch_size": 64, ...}`, as JSON values."""

    def flat(tree: dict[str, Any], prefix: str = ""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            elif prefix + key not in NO_RESULT:
                yield prefix + key, value

    return dict(flat(run.model_dump(mode="json")))
