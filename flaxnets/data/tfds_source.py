"""`NAME`: TensorFlow Datasets that are prepared as array_record, read without TensorFlow."""

import contextlib
import dataclasses
import io
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxnets.data.sources import Source
from flaxnets.errors import DataError, did_you_mean

# Data sets whose labels change when an image is mirrored.
NOT_MIRRORED = frozenset(
    {"binary_alpha_digits", "emnist", "flaxnets_digits", "kmnist", "mnist", "mnist_corrupted", "omniglot"}
    | {"svhn_cropped", "visual_domain_decathlon"}
)


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
    held = builder.info.splits
    for split in splits:
        try:
            sizes = [held[part.strip()].num_examples for part in split.split("+")] if held else [1]
            is_empty = min(sizes) < 0 or not sum(sizes)  # below 0 where a slice ends before it begins
            records = () if is_empty else builder.as_data_source(split, decoders=decoders)
        except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
            if isinstance(error, NotImplementedError) or not held:  # files of another format, or none
                raise DataError(_not_prepared(name, data_dir or _default_folder())) from error
            raise DataError(
                f"Data set {name!r} has no split {split!r}: it has {', '.join(held)}; "
                "choose by --data.train and --data.test."
            ) from error
        if is_empty:
            raise DataError(
                f"Split {split!r} of data set {name!r} is empty, or a part of it ends before it begins; choose another "
                "by --data.train or --data.test."
            )
        sources.append(
            Source(
                examples=_Examples(records, image_key, label_key, f"{name}, {split}"),
                class_names=tuple(features[label_key].names),
                channels=channels,
                mirrors=builder.info.name not in NOT_MIRRORED,
            )
        )
    return sources


def prepare(name: str, data_dir: Path | None) -> tuple[Path, dict[str, int]]:
    """Download and prepare a data set as array_record, unless it is: its folder, and examples a split.

    Raises:
      DataError: an unknown name, TensorFlow is needed and absent, or the download or preparation failed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports of drivers that preparing does not use
    builder = _builder(name, data_dir)
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        missing = str(error).strip().splitlines()[-1]
        raise DataError(
            f"Preparing {name!r} needs a package that is absent ({missing}); run: pip install 'flaxnets[prepare]', and "
            f"then flaxnets prepare {name} again. Training does not need it."
        ) from error
    except Exception as error:  # download and parsing are up to each data set's own code
        raise DataError(
            f"Data set {name!r} cannot be prepared: {_first_line(error)}; mend that and try again."
        ) from error
    return Path(builder.data_dir), {split: info.num_examples for split, info in builder.info.splits.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _default_folder() -> Path:
    from tensorflow_datasets.core import constants

    return Path(constants.DATA_DIR)


def _builder(name: str, data_dir: Path | None) -> Any:
    """The builder of a data set; that of the digits is prepared."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    from flaxnets.data.digits import FlaxnetsDigits

    tfds.disable_progress_bar()
    absl = logging.getLogger("absl")
    absl.setLevel(max(absl.level, logging.ERROR))  # TFDS warns of each folder that it looks at in vain
    where = data_dir or _default_folder()
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        known = set(registered.list_imported_builders()) | _folders_in(where)
        raise DataError(
            f"No data set named {name!r}.{did_you_mean(name.split(':')[0], known)} Names are those of TensorFlow "
            f"Datasets, or of data sets already prepared in {where}."
        ) from error
    except (ValueError, TypeError, AssertionError, ImportError) as error:  # of some names, with the grammar of names
        raise DataError(
            f"Data set {name!r} cannot be used: {_first_line(error)}. Choose another by --data.name."
        ) from error
    if not builder.is_prepared() and builder.name == FlaxnetsDigits.name:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
                builder.download_and_prepare(file_format="array_record")
        except OSError as error:
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            if builder.is_prepared():  # another process was faster
                return builder
            raise DataError(
                f"Cannot prepare the digits in {where}: {error.strerror}; choose a folder by --data.dir."
            ) from error
    return builder


def _folders_in(where: Path) -> set[str]:
    return {folder.name for folder in where.iterdir() if folder.is_dir()} if where.is_dir() else set()


def _not_prepared(name: str, where: Path) -> str:
    place = "" if where == _default_folder() else f" --dir {shlex.quote(str(where))}"
    return f"Data set {name!r} is not prepared as array_record in {where}; run: flaxnets prepare {name}{place}"
