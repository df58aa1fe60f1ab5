"""A TensorFlow Lite file for phones, in float32, float16 or whole numbers, for one image at a time."""

import argparse
from typing import TYPE_CHECKING

import numpy as np

from flaxnets.errors import ConfigError, DataError, WeightsError
from flaxnets.tools import exported, tflite

if TYPE_CHECKING:
    from flaxnets.tools.trained import Trained

LEAST_PICTURES = 32  # to find a network's ranges with


def add_options(parser: argparse._ActionsContainer) -> None:
    """Let `flaxnets export` take the options of this format."""
    parser.add_argument(
        "--precision", choices=tflite.PRECISIONS, default="float32", help="of weights and arithmetic; default: float32"
    )
    parser.add_argument(
        "--calibration",
        type=int,
        default=256,
        metavar="N",
        help="training pictures that int8 finds the ranges of all values with; default: 256",
    )
    parser.add_argument(
        "--calibration-data", metavar="NAME", help="where they are, such as folder:PATH; default: the run's own data"
    )


def files(network: "Trained", arguments: argparse.Namespace) -> dict[str, bytes]:
    """The file and its description, by name.

    Args:
      network: with batch norm.
      arguments: with the options of `add_options` and of `exported.add_options`.

    Raises:
      ArchitectureError: TensorFlow Lite lacks an operator that the network has.
      ConfigError: the extra `tflite` is not installed, or the options do not fit the network.
      DataError: there are too few pictures to calibrate with.
    """
    tflite.require_extra()
    precision, pixels = arguments.precision, arguments.preprocess
    described = exported.describe(network, arguments)
    content = tflite.convert(
        exported.function(network, arguments),
        described.input_shape(1),
        pixels=pixels,
        precision=precision,
        calibration=_calibration(network, arguments) if precision == "int8" else None,
    )
    if not arguments.json:
        print("Operators:", ", ".join(f"{count} {name}" for name, count in tflite.operators(content).items()))
    return exported.files("tflite", content, exported.describe(network, arguments, content, precision))


def load(content: bytes, description: exported.Description, name: str) -> exported.Compute:
    """The function of a batch that the file computes, an image at a time.

    Args:
      content: of the file.
      description: the file has to have the input and the output that it says.
      name: of the file, for messages.

    Raises:
      WeightsError: it is no such file, or LiteRT cannot run it.
      ConfigError: the extra `tflite` is not installed.
    """
    interpreter = tflite.Interpreter(content, name)
    ends = [(description.input_shape(1), description.input_type)], [((1, len(description.class_names)), "float32")]
    if (interpreter.inputs, interpreter.outputs) != ends:
        raise WeightsError(
            f"{name} maps {interpreter.inputs} to {interpreter.outputs}, and its description says {ends[0]} to "
            f"{ends[1]}; give both files of one export."
        )
    return interpreter


def _calibration(network: "Trained", arguments: argparse.Namespace) -> np.ndarray:
    """Training pictures, spread evenly, as the network sees them, float32 [n, h, w, c]; pixels for a file of those."""
    from flaxnets.config import Data
    from flaxnets.data.sources import open_sources
    from flaxnets.tools.comparison import pictures_of

    count = arguments.calibration
    if count < LEAST_PICTURES:
        raise ConfigError(
            f"--calibration {count} is too few pictures to find the ranges of a network's values with; give "
            f"{LEAST_PICTURES} or more."
        )
    data = network.data
    if arguments.calibration_data:
        name = {"name": arguments.calibration_data}
        data = data.model_copy(update=name) if data else Data(**name)
    if data is None:
        raise ConfigError(
            f"int8 needs pictures to find the ranges of values with, and {network.name} comes without; add "
            "--calibration-data, such as folder:PATH, or choose --precision dynamic-range, which needs none."
        )
    found = list(pictures_of(open_sources(data)[0], network, count))
    if len(found) < LEAST_PICTURES:
        raise DataError(
            f"{data.name} has {len(found)} pictures for training, too few to find the ranges of a network's values "
            f"with; give {LEAST_PICTURES} or more by --calibration-data, or choose --precision dynamic-range."
        )
    pictures = np.stack(found).astype(np.float32)
    if not arguments.preprocess:
        return (pictures / 255 - np.array(network.mean, np.float32)) / np.array(network.std, np.float32)
    # Pixels from 0 to 255 in the first picture make the scale of the input 1, so that pixels go in as they are.
    pictures[0, 0, 0], pictures[0, -1, -1] = 0, 255
    return pictures
