"""Hooks on the calls of a model's modules, and `capture`, which hands out what any of them returned."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import nnx

from flaxnets.errors import ArchitectureError, did_you_mean

Hook = Callable[..., Any]
_HOOKS: contextvars.ContextVar[dict[int, Hook]] = contextvars.ContextVar("hooks by the modules that they are on")


def capture(model: nnx.Module, *paths: str) -> Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """A compiled function of images that returns the model's output and those of some of its modules, by their paths.

    Args:
      model: an `ImageClassifier`, or any module of images; it stays as it is.
      paths: of modules, such as `"stem"`, `"stages.2.0"` or `"stages.2.0.first.convolution"`. Of one that is called
        several times, the last output counts.

    Returns:
      A function of images [b, h, w, c] that returns the output, and a dictionary of the outputs of those modules by
      their paths; with the model's parameters of now.

    Raises:
      ArchitectureError: there is no such module; or when called: it takes no part in the output.

    >>> import flaxnets, numpy as np
    >>> see = capture(flaxnets.create("resnet18", num_classes=10), "stages.0.1", "head")
    >>> logits, seen = see(np.zeros((1, 64, 64, 3), np.float32))
    >>> seen["stages.0.1"].shape, seen["head"].shape
    ((1, 16, 16, 64), (1, 512))
    """
    known = {_dotted(path) for path, module in nnx.iter_modules(model) if callable(module)}
    for path in paths:
        if path not in known:
            outermost = sorted(known - {""}, key=lambda path: (path.count("."), path))
            near = did_you_mean(path, known) or f" Among others there are {', '.join(outermost[:8])}."
            raise ArchitectureError(f"The model has no module {path!r}.{near} Give the path of one.")
    graph, state = nnx.split(model)

    @jax.jit
    def run(state: Any, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        copy: Any = nnx.merge(graph, state)
        outputs: dict[str, jax.Array] = {}

        def keep(path: str) -> Hook:
            def hook(call: Hook, *arguments: Any, **keywords: Any) -> Any:
                outputs[path] = call(*arguments, **keywords)
                return outputs[path]

            return hook

        wanted = {_dotted(path): module for path, module in nnx.iter_modules(copy)}
        with hooked({wanted[path]: keep(path) for path in paths}):
            result = copy(images)
        for path in paths:
            if path not in outputs:
                raise ArchitectureError(f"The module {path!r} is never called; give the path of one that is.")
        return result, outputs

    return lambda images: run(state, images)


@contextlib.contextmanager
def hooked(hooks: Mapping[nnx.Module, Hook]) -> Iterator[None]:
    """While it lasts, a call of one of these modules becomes `hook(call, *arguments, **keywords)`.

    Give modules of a copy: they cannot be called afterwards.
    """
    for module in hooks:
        object.__setattr__(module, "__class__", _calling_hooks(type(module)))
    token = _HOOKS.set({id(module): hook for module, hook in hooks.items()})
    try:
        yield
    finally:
        _HOOKS.reset(token)


@functools.cache
def _calling_hooks(kind: type[nnx.Module]) -> type[nnx.Module]:
    """A class like `kind`, but for its calls."""

    def call(self: nnx.Module, *arguments: Any, **keywords: Any) -> Any:
        return _HOOKS.get()[id(self)](functools.partial(kind.__call__, self), *arguments, **keywords)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
