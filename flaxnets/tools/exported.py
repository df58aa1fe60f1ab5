"""Networks as files for other programs: what such a file computes, and the description that lies beside it."""

import argparse
import dataclasses
import hashlib
import importlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flaxnets.config import Augmentation
from flaxnets.errors import ConfigError, WeightsError, printable
from flaxnets.tools.classifier import Classifier

if TYPE_CHECKING:
    import jax

    from flaxnets.tools.trained import Trained

# What a file's name ends in, and the module that writes and runs such files. It has `add_options(parser)`,
# `files(network, arguments) -> {name: bytes}`, and `load(content, description, name) -> function of a batch`.
FORMATS = {"stablehlo": "export_stablehlo", "tflite": "export_tflite"}
STEM = "model"  # of the names of the file and of its description
MOST_BYTES = 2**31  # of a file; protocol buffers and flat buffers hold no more
MOST_DESCRIPTION_BYTES = 2**24
LARGEST_IMAGE = 2**14  # pixels a side

Compute = Callable[[np.ndarray], np.ndarray]


class Description(BaseModel):
    """What a program has to know of an exported file, which holds nothing but arithmetic.

    Attributes:
      sha256: of the file; a description of another file, or a damaged one, is refused.
      precision: of the computation.
      input: `normalised` for float32 images [b, image_size, image_size, channels] in [0, 1] less `mean`, over `std`;
        `pixels` for uint8 ones, which the file normalises itself.
      output: `logits` or `probabilities`, float32 [b, len(class_names)].
      centre_crop: share of a picture's shorter side that is seen, a square in its middle; None if the whole picture
        is, squashed to a square.
      arch, options, class_names, mean, std, image_size: as of `Classifier`.
      flaxnets: version that wrote it.
      description: version of this list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: Literal[1] = 1
    flaxnets: str
    sha256: str
    arch: str
    options: dict[str, Any]
    precision: Literal["float32", "float16", "dynamic-range", "int8"] = "float32"
    input: Literal["normalised", "pixels"]
    output: Literal["logits", "probabilities"]
    image_size: int = Field(ge=1, le=LARGEST_IMAGE)
    centre_crop: float | None = Field(gt=0, le=1)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _statistics_fit(self) -> "Description":
        numbers = (*self.mean, *self.std)
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std) or not all(map(math.isfinite, numbers)):
            raise ValueError("mean and std are 1 or 3 finite numbers each")
        if min(self.std) <= 0:
            raise ValueError("std is above 0")
        return self

    def input_shape(self, batch: Any) -> tuple[Any, int, int, int]:
        """Of a batch of images."""
        return (batch, self.image_size, self.image_size, len(self.mean))

    @property
    def input_type(self) -> str:
        """Of the images, as NumPy calls it."""
        return "uint8" if self.input == "pixels" else "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported(Classifier):
    """A network in an exported file, ready to classify.

    Attributes:
      description: all of it.
      compute: from images as `description.input` says to what `description.output` says.
    """

    description: Description
    compute: Compute

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Logits [b, classes] of pixels uint8 [b, h, w, c]; logarithms of probabilities where the file gives those."""
        images = pixels
        if self.description.input == "normalised":
            mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
            images = (pixels.astype(np.float32) / 255 - mean) / std
        found = self.compute(images)
        if self.description.output == "logits":
            return found
        return np.log(np.maximum(found, np.finfo(np.float32).tiny))  # 0 where a probability is too small for a float32


def add_options(parser: argparse._ActionsContainer) -> None:
    """Let `flaxnets export` take what all these formats have in common."""
    parser.add_argument("--preprocess", action="store_true", help="take uint8 pixels, and normalise them in the file")
    parser.add_argument("--softmax", action="store_true", help="give probabilities in place of logits")


def function(network: "Trained", arguments: argparse.Namespace) -> "Callable[[jax.Array], jax.Array]":
    """What is exported, of images alone; batch norm is folded, and parameters are constants.

    Args:
      network: with batch norm.
      arguments: with the options of `add_options`.
    """
    import jax
    from flax import nnx

    from flaxnets.fold import fold_batch_norm
    from flaxnets.training.step import normalise

    graph, state = nnx.split(fold_batch_norm(network.model))

    def compute(images: "jax.Array") -> "jax.Array":
        if arguments.preprocess:
            images = normalise(images, network.mean, network.std)
        logits = nnx.merge(graph, state)(images)
        return jax.nn.softmax(logits) if arguments.softmax else logits

    return compute


def describe(
    network: "Trained", arguments: argparse.Namespace, content: bytes = b"", precision: str = "float32"
) -> Description:
    """The description of a file with that content. Raises ConfigError for one that no file can be of."""
    from flaxnets import __version__

    if not network.class_names:
        raise ConfigError(f"{network.name} has no classifier; give a network that tells classes.")
    if network.image_size > LARGEST_IMAGE:
        raise ConfigError(f"--image-size cannot be {network.image_size}; give at most {LARGEST_IMAGE}.")
    return Description(
        flaxnets=__version__,
        sha256=hashlib.sha256(content).hexdigest(),
        arch=network.arch,
        options=network.options,
        precision=cast(Any, precision),
        input="pixels" if arguments.preprocess else "normalised",
        output="probabilities" if arguments.softmax else "logits",
        image_size=network.image_size,
        centre_crop=network.view.centre_crop if network.view.crop == "random_resized" else None,
        mean=network.mean,
        std=network.std,
        # A folder's name may hold bytes that are no text, which JSON cannot.
        class_names=tuple(name.encode(errors="backslashreplace").decode() for name in network.class_names),
    )


def files(suffix: str, content: bytes, description: Description) -> dict[str, bytes]:
    """The exported file and its description, by name."""
    return {
        f"{STEM}.{suffix}": content,
        f"{STEM}.json": (description.model_dump_json(indent=2) + "\n").encode(),
    }


def is_exported(source: str) -> bool:
    """Whether a user who names this means an exported file."""
    return Path(source).suffix.removeprefix(".") in FORMATS and not os.path.isdir(source)


def open_exported(source: str | Path) -> Exported:
    """The network in an exported file; the architecture need not be installed.

    Raises:
      WeightsError: the file or its description is missing, damaged, of the other's kind, or not for this machine.
    """
    path, name = Path(source), printable(source)
    beside = path.with_suffix(".json")
    content = _read(path, MOST_BYTES, f"There is no exported network {name}; give one that `flaxnets export` wrote.")
    text = _read(
        beside,
        MOST_DESCRIPTION_BYTES,
        f"{name} has no description beside it, {printable(beside.name)}; copy both files of the export.",
    )
    try:
        description = Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise WeightsError(
            f"{printable(beside)} describes no exported network ({printable(where)}: {printable(first['msg'])}); "
            "export the network again, with this version of flaxnets."
        ) from error
    if hashlib.sha256(content).hexdigest() != description.sha256:
        raise WeightsError(
            f"{name} is damaged, or {beside.name} is of another file: its checksum is wrong; copy both again, together."
        )
    module = importlib.import_module(f"flaxnets.tools.{FORMATS[path.suffix.removeprefix('.')]}")
    share = description.centre_crop
    return Exported(
        name=str(source),
        **{field: getattr(description, field) for field in ("arch", "options", "class_names", "mean", "std")},
        image_size=description.image_size,
        view=Augmentation(crop="random_resized", centre_crop=share) if share else Augmentation(),
        description=description,
        compute=module.load(content, description, name),
    )


def open_classifiers(sources: Sequence[str], arguments: argparse.Namespace) -> list[Classifier]:
    """The networks that a user names: exported files, and whatever `open_networks` takes.

    Raises:
      FlaxnetsError: there is no such network, it is damaged, or the options do not fit it.
    """
    from flaxnets.tools.trained import open_networks

    given = ("arch", "options", "classes", "image_size", "centre_crop")
    if all(map(is_exported, sources)) and any(getattr(arguments, name) for name in given):
        raise ConfigError(
            f"{sources[0]} is an exported network, which knows its input and classes; leave out "
            f"{', '.join('--' + name.replace('_', '-') for name in given)}."
        )
    opened = iter(open_networks([source for source in sources if not is_exported(source)], arguments))
    return [open_exported(source) if is_exported(source) else next(opened) for source in sources]


def _read(path: Path, most: int, missing: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise WeightsError(f"{printable(path)} has {size:,} bytes, more than {most:,}; give an exported network.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(missing) from error
    except OSError as error:
        raise WeightsError(f"Cannot read {printable(path)}: {error.strerror}; give another file.") from error
