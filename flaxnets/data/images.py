"""The images of a run, as its configuration describes them: training and test batches, and what is known of them."""

import dataclasses
import os

import jax

from flaxnets import registry
from flaxnets.config import Augmentation, Data, Run
from flaxnets.data import augmentation, check, pipeline, sources
from flaxnets.plugin import by_channel
from flaxnets.weights.files import require_file
from flaxnets.weights.trained import read_run

NEW_SIZE = 32  # of images for new weights, where nobody chose one


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set, ready for training.

    Attributes:
      train, test: batches by number, see `pipeline`; `train` is endless.
      batch: the shapes and types of a batch over all hosts.
      train_count, test_count: number of images.
      class_names: one a label.
      channels: 1 for grey images, 3 for colour.
      mean, std: statistics of each channel over the training images, scaled to [0, 1].
    """

    train: pipeline.TrainBatches
    test: pipeline.EvalBatches
    batch: dict[str, jax.ShapeDtypeStruct]
    train_count: int
    test_count: int
    class_names: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def decide_input(run: Run) -> tuple[Run, Statistics | None]:
    """A run whose image size is decided, and the mean and std of the images that its weights expect, if it has any.

    Weights are of most use with images as they were trained on: of their run, or of their architecture as published.
    Raises RunFolderError, WeightsError or ArchitectureError where there is no such.
    """
    size, statistics = NEW_SIZE, None
    if run.weights and os.path.isdir(run.weights):
        weights = read_run(run.weights)
        size, statistics = weights.image_size, (weights.mean, weights.std)
    elif run.weights:
        if not run.resume:  # then the run has them
            require_file(run.weights)
        architecture = registry.get(run.arch)
        size, statistics = architecture.image_size, (architecture.mean, architecture.std)
    data = run.data.model_copy(update={"image_size": run.data.image_size or size})
    return run.model_copy(update={"data": data}), statistics


def open_images(data: Data, chosen: Augmentation, seed: int, statistics: Statistics | None = None) -> Images:
    """Open a data set, and prepare it if it is the built-in one. Raises DataError for whatever is wrong with it.

    Args:
      data: which, and how; an undecided image size is that for new weights.
      chosen, seed: of the changes at random.
      statistics: mean and std to use in place of those of the training images.
    """
    size = data.image_size or NEW_SIZE
    train, test = check.usable(sources.open_sources(data), data.on_error)
    if data.channels:
        train, test = (dataclasses.replace(source, channels=data.channels) for source in (train, test))
    eval_transforms = augmentation.eval_transforms(chosen, data.test_image_size or size)
    if statistics:
        mean, std = (by_channel(values, train.channels) for values in statistics)
    else:
        mean, std = pipeline.pixel_statistics(train, eval_transforms)
    train_transforms = augmentation.train_transforms(chosen, size, mirrors=train.mirrors, mean=mean)
    part = {"host": jax.process_index(), "hosts": jax.process_count()}
    train_batches = pipeline.TrainBatches(
        train, train_transforms, data.batch_size, seed=seed, repeats=chosen.repeats, **part
    )
    first = train_batches[0]
    return Images(
        train=train_batches,
        test=pipeline.EvalBatches(test, eval_transforms, data.batch_size, **part),
        batch={
            name: jax.ShapeDtypeStruct((data.batch_size, *array.shape[1:]), array.dtype)
            for name, array in first.items()
        },
        train_count=len(train.examples),
        test_count=len(test.examples),
        class_names=train.class_names,
        channels=train.channels,
        mean=mean,
        std=std,
    )
