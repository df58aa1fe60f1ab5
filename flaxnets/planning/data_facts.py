"""What a plan has to know of a data set, which need not be on the machine that plans."""

import dataclasses

from flaxnets.config import Data
from flaxnets.errors import DataError


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """Number of training images, of classes, and of channels: 1 or 3."""

    train_count: int
    num_classes: int
    channels: int


# Split `train` of sets that few have on the machine where they plan; source: the catalogue of TensorFlow Datasets.
# fmt: off
CATALOGUE = {
    #                        images  classes  channels
    "imagenet2012": DataFacts(1_281_167, 1000, 3),
    "cifar10":      DataFacts(50_000,      10, 3),
    "cifar100":     DataFacts(50_000,     100, 3),
}
# fmt: on


def facts_of(data: Data, train_count: int | None, num_classes: int | None) -> DataFacts:
    """The facts of a data set: as given, or read from the set itself, or known although it is not here.

    Raises:
      DataError: the set is not here, and not both numbers are given.
    """
    if train_count and num_classes:
        return DataFacts(train_count, num_classes, data.channels or 3)
    from flaxnets.data.sources import open_sources

    try:
        source, _ = open_sources(data)
        found = DataFacts(len(source.examples), len(source.class_names), source.channels)
    except DataError as error:
        if data.name not in CATALOGUE or data.train != "train":
            known = str(error).rstrip(".")
            raise DataError(f"{known}; or plan without it by --train-images and --classes.") from error
        found = CATALOGUE[data.name]
    return DataFacts(
        train_count or found.train_count, num_classes or found.num_classes, data.channels or found.channels
    )
