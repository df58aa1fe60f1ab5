"""Mistakes that a user can make: the command line prints them as one sentence, without a traceback."""

import difflib
from collections.abc import Iterable


class FlaxnetsError(Exception):
    """A mistake outside flaxnets itself; its text says what is wrong and ends with the fix."""


class ArchitectureError(FlaxnetsError):
    """An architecture that is unknown, ambiguous, broken, or asked for something that it cannot do."""


class ConfigError(FlaxnetsError):
    """A run that is described wrongly: an unknown key, a value out of range, parts that do not fit together."""


class DataError(FlaxnetsError):
    """A data set that is unknown, not prepared, or not what an image classifier needs."""


class RunFolderError(FlaxnetsError):
    """A run folder that cannot be written, belongs to another run, or holds no usable checkpoint."""


class WeightsError(FlaxnetsError):
    """Weights that cannot be read, do not fit the model, or are no tensors at all."""


class DivergenceError(FlaxnetsError):
    """Training that left the finite numbers."""


class OutOfMemoryError(FlaxnetsError):
    """A network and a batch of images that the memory of a device, or of the machine, does not hold."""


class ProcessError(FlaxnetsError):
    """Several processes do not find each other, or have lost one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean a, b?' for the names nearest to `name`, or nothing where none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def printable(text: object) -> str:
    """A path or name as one line of text: bytes that are no text, line ends and the like become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
