"""Image classifiers for JAX: architecture plugins and one fast training core.

Importing flaxnets imports no jax; the first model does.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["FlaxnetsError", "available", "capture", "create", "fold_batch_norm", "summary"]

if TYPE_CHECKING:
    from flaxnets.errors import FlaxnetsError
    from flaxnets.fold import fold_batch_norm
    from flaxnets.hooks import capture
    from flaxnets.models import create
    from flaxnets.summaries import summary

_HOME = {
    "FlaxnetsError": "flaxnets.errors",
    "capture": "flaxnets.hooks",
    "create": "flaxnets.models",
    "fold_batch_norm": "flaxnets.fold",
    "summary": "flaxnets.summaries",
}


def available(pattern: str = "*") -> list[str]:
    """Names of architectures that match a shell pattern, each ready for `create`; imports no plugin and no jax."""
    from flaxnets import registry

    return [entry.label for entry in registry.available(pattern)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'flaxnets' has no attribute {name!r}")
