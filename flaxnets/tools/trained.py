"""What every tool takes, opened as one object: a run folder, a weights file with `--arch`, an architecture's name."""

import argparse
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxnets.errors import ArchitectureError, ConfigError, RunFolderError, WeightsError, did_you_mean, printable
from flaxnets.tools.classifier import Classifier
from flaxnets.tools.options import add_options, check_counts, read_options

if TYPE_CHECKING:
    from flaxnets.config import Data
    from flaxnets.plugin import ImageClassifier
    from flaxnets.weights.trained import TrainedRun

FILES = (".pth", ".pt", ".safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained(Classifier):
    """A network that is ready to classify.

    Attributes:
      model: in inference mode; of images [b, h, w, channels], normalised by `mean` and `std`.
      run: the run folder that it is from, with all of run.json; None for others.
    """

    model: "ImageClassifier"
    run: "TrainedRun | None" = None

    @property
    def data(self) -> "Data | None":
        """The data set that the run was trained on; None for others."""
        from flaxnets.config import Data

        return Data(**self.run.record["run"]["data"]) if self.run else None


def add_network(parser: argparse._ActionsContainer) -> None:
    """Let a command take the options that say what a network is: a run folder knows all, a weights file does not."""
    parser.add_argument("--arch", help="architecture of a weights file, see `flaxnets list`; a run knows its own")
    add_options(parser)
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names of a weights file: class_indices.json, or a line each"
    )
    parser.add_argument("--image-size", type=int, help="height and width in pixels; default: as trained or published")
    parser.add_argument(
        "--centre-crop",
        type=float,
        metavar="SHARE",
        help="share of the shorter side that the network sees; default: as trained, or .875",
    )


def open_network(source: str, arguments: argparse.Namespace, *, fold: bool = True, untrained: bool = False) -> Trained:
    """The network that a user names by `source` and the options of `add_network`.

    Args:
      source: a run folder, a .pth, .pt or .safetensors file, or an architecture's name.
      arguments: with the options of `add_network`.
      fold: let convolutions do what batch norm does: the same function, faster.
      untrained: whether an architecture's name will do, with random weights and a warning.

    Raises:
      FlaxnetsError: there is no such network, it is damaged, or the options do not fit it.
    """
    if os.path.isdir(source) and (arguments.arch or arguments.options or arguments.classes):
        raise ConfigError(f"{source} is a run, which knows its network; leave out --arch, --options and --classes.")
    return _open(source, arguments, fold, untrained)


def open_networks(sources: Sequence[str], arguments: argparse.Namespace) -> list[Trained]:
    """As `open_network`, for several; what a weights file needs is not for the runs beside it."""
    if all(os.path.isdir(source) for source in sources):
        return [open_network(source, arguments) for source in sources]
    return [_open(source, arguments, fold=True, untrained=False) for source in sources]


def open_run(folder: str) -> Trained:
    """The network of a run folder, as it was trained. Raises RunFolderError for anything else."""
    if not os.path.isdir(folder):
        raise RunFolderError(f"There is no run folder {folder}; give a folder that `flaxnets train` wrote.")
    return _of_run(folder)


def _open(source: str, arguments: argparse.Namespace, fold: bool, untrained: bool) -> Trained:
    check_counts(arguments, "image_size")
    if arguments.centre_crop is not None and not 0 < arguments.centre_crop <= 1:
        raise ConfigError(f"--centre-crop cannot be {arguments.centre_crop}; give a share above 0, at most 1.")
    if os.path.isdir(source):  # which, unlike Path's, tells of a name that is too long that there is no such
        opened = _of_run(source)
    elif os.path.isfile(source) or Path(source).suffix in FILES:
        opened = _of_file(source, arguments)
    else:
        opened = _of_architecture(source, arguments, untrained)
    view = opened.view
    if arguments.centre_crop:
        view = view.model_copy(update={"crop": "random_resized", "centre_crop": arguments.centre_crop})
    model = opened.model
    if fold:
        from flaxnets.fold import fold_batch_norm

        model = fold_batch_norm(model)
    return dataclasses.replace(opened, model=model, view=view, image_size=arguments.image_size or opened.image_size)


def _of_run(source: str) -> Trained:
    import jax
    from flax import nnx

    from flaxnets import models
    from flaxnets.config import Augmentation
    from flaxnets.weights.trained import damaged, read_run

    run = read_run(source)
    try:
        view = Augmentation(**run.record["run"]["augmentation"])
    except (KeyError, TypeError) as error:
        raise damaged(run.folder) from error
    model = models.filled(run.arch, run.tensors(), len(run.class_names), run.channels, **run.options)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(model))):
        raise damaged(run.folder)  # it names more or fewer classes than the checkpoint has
    return Trained(
        name=source,
        arch=run.arch,
        options=run.options,
        model=model,
        class_names=run.class_names,
        mean=run.mean,
        std=run.std,
        image_size=run.image_size,
        view=view,
        run=run,
    )


def _of_file(source: str, arguments: argparse.Namespace) -> Trained:
    from flaxnets import models
    from flaxnets.weights.files import read_weights

    tensors = read_weights(source)
    arch, names = arguments.arch, arguments.classes
    if not arch:
        raise ConfigError(f"{source} does not say which network its weights are of; add --arch NAME.")
    options = read_options(arguments.options, arch)
    num_classes, channels = models.sizes_of(arch, tensors, **options)
    if channels not in (1, 3):
        raise WeightsError(
            f"{source} is of images of {channels} channels; give weights for grey or colour pictures: 1 or 3."
        )
    model = models.filled(arch, tensors, num_classes, channels, **options)
    class_names = _class_names(names, num_classes) if names else tuple(map(str, range(num_classes)))
    return _published(source, arch, options, model, class_names, channels)


def _of_architecture(source: str, arguments: argparse.Namespace, untrained: bool) -> Trained:
    from flaxnets import models, registry

    try:
        registry.find(source)
    except ArchitectureError as error:
        if Path(source).name != source:
            raise RunFolderError(f"There is no {source}; give a run folder, or a weights file with --arch.") from error
        near = did_you_mean(source, [entry.label for entry in registry.available()])
        raise RunFolderError(
            f"There is no run folder, weights file or architecture {source!r}.{near} Give one that exists."
        ) from error
    if not untrained:
        raise WeightsError(
            f"{source} is an architecture without weights, whose answers would be random; give a run folder, or a "
            f"weights file and --arch {source}."
        )
    options = read_options(arguments.options, source)
    logging.getLogger("flaxnets").warning("%s has random weights: shapes are right, values mean nothing.", source)
    return _published(source, source, options, models.create(source, **options), tuple(map(str, range(1000))), 3)


def _published(
    source: str,
    arch: str,
    options: dict[str, Any],
    model: "ImageClassifier",
    class_names: tuple[str, ...],
    channels: int,
) -> Trained:
    """A network whose input is that of its architecture's published weights."""
    from flaxnets import registry
    from flaxnets.config import Augmentation
    from flaxnets.plugin import by_channel

    architecture = registry.get(arch)

    return Trained(
        name=source,
        arch=arch,
        options=options,
        model=model,
        class_names=class_names,
        mean=by_channel(architecture.mean, channels),
        std=by_channel(architecture.std, channels),
        image_size=architecture.image_size,
        view=Augmentation(crop="random_resized"),
    )


def _class_names(file: Path, num_classes: int) -> tuple[str, ...]:
    """Names out of a class_indices.json (`{"0": "daisy", ...}`), a JSON list, or a text file with a line a class."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"Cannot read {file}: {reason}; give a class_indices.json, or a text file, to --classes."
        ) from error
    try:
        held = json.loads(text)
        names: Sequence[Any] = (
            [held[str(index)] for index in range(len(held))] if isinstance(held, dict) else list(held)
        )
    except (ValueError, TypeError, KeyError):
        names = text.splitlines()
    if len(names) != num_classes:
        raise ConfigError(f"{file} names {len(names)} classes, and the weights have {num_classes}; give one name each.")
    return tuple(printable(name) for name in names)
