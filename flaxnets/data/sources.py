"""Where examples come from: random access to encoded images with their labels."""

import contextlib
import dataclasses
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grain.sources import RandomAccessDataSource

from flaxnets.errors import DataError, did_you_mean

# Data sets whose labels change when an image is mirrored.
NOT_MIRRORED = frozenset(
    {"binary_alpha_digits", "emnist", "flaxnets_digits", "kmnist", "mnist", "mnist_corrupted", "omniglot"}
    | {"svhn_cropped", "visual_domain_decathlon"}
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
      examples: `examples[i]` is `{"image": bytes of an image file, or uint8 pixels [h, w, 1 or 3], "label": int,
        "name": what to call it in a message}`; many threads may read it.
      class_names: one a label, in the order of the labels.
      channels: 1 for grey images, 3 for colour.
      mirrors: whether an image keeps its label when it is flipped from left to right.
    """

    examples: RandomAccessDataSource[dict[str, Any]]
    class_names: tuple[str, ...]
    channels: int
    mirrors: bool


@dataclasses.dataclass(frozen=True)
class _Examples:
    """The image and the label of TFDS records, under those names."""

    records: Any
    image_key: str
    label_key: str
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        return {
            "image": record[self.image_key],
            "label": int(record[self.label_key]),
            "name": f"example {index} of {self.name}",
        }


def tfds_sources(name: str, splits: Sequence[str], data_dir: Path | None) -> list[Source]:
    """Splits of a TensorFlow Datasets set that is prepared as array_record; TensorFlow is not needed.

    Args:
      name: `NAME`, `NAME/CONFIG` or `NAME:VERSION`. `flaxnets_digits` is prepared if it is not yet.
      splits: in TFDS syntax, such as `train` or `train[:90%]`.
      data_dir: where data sets are prepared; None for TFDS's own folder.

    Raises:
      DataError: an unknown name or split, a set that is not prepared, or one without images and labels.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir)
    features = builder.info.features or {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    pair = builder.info.supervised_keys or (*images, *labels)
    if len(pair) != 2 or pair[0] not in images or pair[1] not in labels:
        raise DataError(
            f"Data set {name!r} does not pair one image with one class label; choose another by --data.name."
        )
    image_key, label_key = pair
    channels = features[image_key].shape[-1] or 3
    decoders = {image_key: tfds.decode.SkipDecoding()}  # examples stay encoded until a loader thread wants them
    sources = []
    for split in splits:
        try:
            records = builder.as_data_source(split, decoders=decoders)
        except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
            if isinstance(error, NotImplementedError) or not builder.info.splits:  # files of another format, or none
                raise DataError(_not_prepared(name, builder.data_dir)) from error
            raise DataError(
                f"Data set {name!r} has no split {split!r}: it has {', '.join(builder.info.splits)}; "
                "choose by --data.train and --data.test."
            ) from error
        sources.append(
            Source(
                examples=_Examples(records, image_key, label_key, f"{name}, {split}"),
                class_names=tuple(features[label_key].names),
                channels=channels,
                mirrors=builder.info.name not in NOT_MIRRORED,
            )
        )
    return sources


def _builder(name: str, data_dir: Path | None) -> Any:
    """The builder of a data set; that of the digits is prepared."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, registered

    from flaxnets.data.digits import FlaxnetsDigits

    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of each folder that it looks at in vain
    where = data_dir or Path(constants.DATA_DIR)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        known = set(registered.list_imported_builders()) | _folders_in(where)
        raise DataError(
            f"No data set named {name!r}.{did_you_mean(name.split(':')[0], known)} Names are those of TensorFlow "
            f"Datasets, or of data sets already prepared in {where}."
        ) from error
    except (ValueError, AssertionError, ImportError) as error:
        raise DataError(f"Data set {name!r} cannot be used: {error}. Choose another by --data.name.") from error
    if not builder.is_prepared() and builder.name == FlaxnetsDigits.name:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
                builder.download_and_prepare(file_format="array_record")
        except OSError as error:
            raise DataError(
                f"Cannot prepare the digits in {where}: {error.strerror}; choose a folder by --data.dir."
            ) from error
    return builder


def _folders_in(where: Path) -> set[str]:
    return {folder.name for folder in where.iterdir() if folder.is_dir()} if where.is_dir() else set()


def _not_prepared(name: str, where: Any) -> str:
    return (
        f"Data set {name!r} is not prepared as array_record in {where}. Where TensorFlow is installed, run: "
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', file_format='array_record')"
        '.download_and_prepare()"'
    )
