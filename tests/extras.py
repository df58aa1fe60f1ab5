"""Tests that need an optional extra of hundreds of megabytes, which nobody should need to run the others."""

from importlib.util import find_spec

import pytest


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    """Marks what runs only beside an installed module; `.ci/run` installs all extras after the other tests."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"pip install 'flaxnets[{extra}]', as .ci/run does")
