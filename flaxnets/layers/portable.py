"""The switch for programs that others compile: every layer in XLA's own form, whatever the platform."""

import contextlib
import contextvars
from collections.abc import Iterator

_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced meanwhile has one operator for each layer: a depthwise convolution is one convolution.

    Layers else bring forms of their own for CPUs (`cpu_form`), which are many operators each. A converter to another
    format would take them for what the network is.
    """
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def is_portable() -> bool:
    """Whether `portable` is in force."""
    return _portable.get()
