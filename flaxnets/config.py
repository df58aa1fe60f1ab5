"""What a run is: frozen models, their defaults, and experiment files (TOML) that fill them in."""

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from flaxnets.errors import ConfigError, did_you_mean

# What may differ between a run and its continuation: none of it changes what is computed.
NO_RESULT = frozenset({"experiment", "runs", "name", "resume", "keep", "log_every", "compilation_cache"}) | {
    "data.dir",
    "data.workers",
}


class Part(pydantic.BaseModel):
    """A frozen group of settings; anything wrong in it raises ConfigError, in one sentence that names the setting."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    section: ClassVar[str] = ""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _explain(cls, values: Any, handler: pydantic.ModelWrapValidatorHandler) -> Any:
        try:
            return handler(values)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
        key = ".".join([*([cls.section] if cls.section else []), *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            near = did_you_mean(key, option_names())
            raise ConfigError(f"There is no setting {key!r}.{near} `flaxnets train --help` lists all.")
        wanted = problem["msg"][0].lower() + problem["msg"][1:]
        raise ConfigError(f"{key} cannot be {problem['input']!r}: {wanted}; change --{key.replace('_', '-')}.")


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
    workers: int | None = pydantic.Field(default=None, gt=0)
    """Threads that decode images; default: the cores, up to 16."""
    repeats: int = pydantic.Field(default=1, gt=0)
    """How often each image comes in a row, augmented anew (repeated augmentation)."""
    batch_size: int = pydantic.Field(default=64, gt=0)
    """Images a step, over all devices."""
    image_size: int = pydantic.Field(default=32, gt=0)
    """Height and width in pixels that images are resized to."""
    channels: Literal[1, 3] | None = None
    """1 for grey images, 3 for colour; default: as the data set has them."""
    augmentation: Literal["shift", "random_resized_crop"] = "shift"
    """Training images: resized and shifted by up to 1/8, or a random part resized (tests: the central .875)."""
    flip: bool | None = None
    """Mirror every other training image from left to right; default: where that keeps the data set's labels."""


class Optimizer(Part):
    """SGD with Nesterov momentum; the learning rate warms up linearly, then falls as a cosine to 0."""

    section = "optimizer"

    peak_lr: float = pydantic.Field(default=0.1, gt=0)
    """Highest learning rate, per 256 images of the batch."""
    warmup_epochs: float = pydantic.Field(default=2.0, ge=0)
    """Epochs over which the learning rate rises from 0."""
    momentum: float = pydantic.Field(default=0.9, ge=0, lt=1)
    """Share of the last update that goes on."""
    weight_decay: float = pydantic.Field(default=5e-4, ge=0)
    """L2 penalty on kernels; biases and batch norm have none."""


class Run(Part):
    """Train an image classifier, test it as it goes, and keep its checkpoints in a run folder."""

    arch: str = "resnet50"
    """Architecture, see `flaxnets list`."""
    options: dict[str, int | float | bool | str] = {}
    """Options of the architecture, such as `width 0.5`; `flaxnets info ARCH` lists them."""
    weights: Path | None = None
    """Start from these weights: a .safetensors, .pth or .pt file; a classifier of other classes starts anew."""
    epochs: float = pydantic.Field(default=15.0, gt=0)
    """Passes over the training images."""
    steps: int | None = pydantic.Field(default=None, gt=0)
    """Optimiser steps; in place of epochs."""
    label_smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters are float32 always."""
    sync_batch_norm: bool = False
    """Let batch norm see the batches of all devices, not only its own."""
    evaluate_every: float = pydantic.Field(default=1.0, gt=0)
    """Epochs between evaluations; each saves a checkpoint."""
    keep: int = pydantic.Field(default=2, gt=0)
    """Newest checkpoints to keep; the best is kept besides."""
    log_every: int = pydantic.Field(default=5, gt=0)
    """Steps between lines of metrics.jsonl."""
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
    compilation_cache: Path = Path("~/.cache/flaxnets/compilation")
    """Where compiled programs are kept, so that the next start is fast."""
    data: Data = Data()
    optimizer: Optimizer = Optimizer()

    @pydantic.field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name != Path(name).name or name in (".", "..")):
            raise ValueError("a run's name is one folder, without slashes")
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
        return Run(**settings, experiment=file)
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}; give a TOML file to --experiment.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}; mend that line.") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def settings(run: Run) -> dict[str, Any]:
    """What decides the result of a run, flat: `{"data.batch_size": 64, ...}`, as JSON values."""

    def flat(tree: dict[str, Any], prefix: str = ""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            elif prefix + key not in NO_RESULT:
                yield prefix + key, value

    return dict(flat(run.model_dump(mode="json")))
