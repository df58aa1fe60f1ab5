"""Checks of the options that users give to architectures; each error ends with what may be given instead."""

import math
from collections.abc import Sequence

from flaxnets.errors import ArchitectureError


def require_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """Raise ArchitectureError unless `value` is one of `choices`."""
    if value not in choices:
        known = " or ".join(f"{option}={choice!r}" for choice in choices)
        raise ArchitectureError(f"{option} cannot be {value!r}: give {known}.")


def require_positive(option: str, value: float) -> None:
    """Raise ArchitectureError unless `value` is a finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise ArchitectureError(f"{option} cannot be {value!r}: give a number above 0, such as {option}=0.5.")


def require_rate(option: str, value: float) -> None:
    """Raise ArchitectureError unless `value` is a probability below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ArchitectureError(
            f"{option} cannot be {value!r}: give a number from 0 up to but not including 1, such as {option}=0.2."
        )


def require_odd(option: str, value: int) -> None:
    """Raise ArchitectureError unless `value` is an odd whole number above 0: a kernel size that has a middle."""
    if not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise ArchitectureError(f"{option} cannot be {value!r}: give an odd number of pixels, such as {option}=7.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
