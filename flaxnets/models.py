"""Makes models by name."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets import registry
from flaxnets.errors import ArchitectureError, WeightsError
from flaxnets.plugin import ImageClassifier
from flaxnets.weights.files import read_weights
from flaxnets.weights.layouts import TensorPath, match, sizes
from flaxnets.weights.trained import read_run

Model = TypeVar("Model", bound=nnx.Module)


def create(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    weights: str | os.PathLike | Mapping[str, Any] | None = None,
    *,
    dtype: Any = None,
    seed: int = 0,
    **options: Any,
) -> ImageClassifier:
    """A model in inference mode (batch norm by its running averages, no dropout), new or with given weights.

    Args:
      name: a registered architecture, see `flaxnets.available`.
      num_classes: logits per image; 0 for a model that returns its embedding.
      in_channels: channels per image; images are [b, h, w, in_channels], float32, normalised.
      weights: a run folder, of which the best checkpoint is taken; a .safetensors, .pth or .pt file; or a mapping of
        tensor names to arrays, in flaxnets' own layout or one of the architecture's (torchvision's, timm's). A
        classifier of other classes is not taken over, with a warning.
      dtype: type of the computation, such as `jnp.bfloat16`; float32 if None. Parameters are float32 always.
      seed: of the initial values; the same on every platform.
      options: what this architecture takes besides, such as `width=0.5`, see `flaxnets info NAME`.

    Raises:
      ArchitectureError: no such architecture, its plugin is broken, or it takes no such option or value.
      WeightsError: the weights cannot be read or do not fit.
      RunFolderError: the run folder holds no checkpoint that can be read.

    >>> model = create("resnet18", num_classes=10, seed=1)
    >>> model(jnp.zeros((2, 32, 32, 3))).shape
    (2, 10)
    """
    model = _build(name, num_classes, in_channels, dtype, nnx.Rngs(seed), options)
    if weights is not None:
        _refuse_run_of_another(weights, name)
        arrays = match(model, read_weights(weights), registry.get(name).layouts, name)
        _fill(model, arrays)
    return in_mode(model, training=False)


def abstract(
    name: str, num_classes: int = 1000, in_channels: int = 3, *, dtype: Any = None, **options: Any
) -> ImageClassifier:
    """What `create` makes, with shapes and types in place of arrays: in a second or two, whatever its size."""
    return shapes_of(lambda rngs: in_mode(_build(name, num_classes, in_channels, dtype, rngs, options), training=False))


def shapes_of(build: Callable[[nnx.Rngs], Model]) -> Model:
    """The model that `build(rngs)` makes, with shapes and types in place of arrays."""

    def built() -> Model:
        rngs = nnx.Rngs(default=0)
        setattr(rngs, "default", _SameKey(0, tag="default"))  # noqa: B010 - a type checker knows no such attribute
        return build(rngs)

    return nnx.eval_shape(built)


def filled(
    name: str, tensors: Mapping[str, np.ndarray], num_classes: int, in_channels: int, **options: Any
) -> ImageClassifier:
    """What `create` makes of weights that fit in every shape; faster, because no initial values are drawn."""
    model = abstract(name, num_classes, in_channels, **options)
    arrays = match(model, tensors, registry.get(name).layouts, name)
    _fill(model, arrays)
    streams = nnx.state(model, nnx.RngState)  # of dropout, which inference does not draw from
    nnx.update(model, jax.tree.map(_first_of_stream, streams))
    return model


def sizes_of(name: str, tensors: Mapping[str, np.ndarray], **options: Any) -> tuple[int, int]:
    """The number of classes and of input channels that weights of an architecture are for; no classes without one."""
    both = abstract(name, 1000, 3, **options), abstract(name, 1001, 4, **options)
    found = sizes(both, tensors, registry.get(name).layouts, name)
    return found.get(1000, 0), found.get(3, 3)


def in_mode(model: Model, *, training: bool) -> Model:
    """A view of a model, sharing its variables, that trains or infers (batch norm by running averages, no dropout)."""
    return nnx.view(model, deterministic=not training, use_running_average=not training, raise_if_not_found=False)


def _build(
    name: str, num_classes: int, in_channels: int, dtype: Any, rngs: nnx.Rngs, options: dict[str, Any]
) -> ImageClassifier:
    architecture = registry.get(name)
    if num_classes < 0 or in_channels < 1:
        raise ArchitectureError(
            f"A model cannot have {num_classes} classes and {in_channels} input channels; give num_classes=0 for the "
            "embedding, or more, and in_channels=1 or more."
        )
    registry.check_options(name, options)
    for option, value in options.items():
        if isinstance(architecture.options[option], bool) and not isinstance(value, bool):  # "false" is true
            raise ArchitectureError(f"{option} cannot be {value!r}: give {option}=True or False.")
    return architecture.build(
        num_classes=num_classes, in_channels=in_channels, dtype=dtype or jnp.float32, rngs=rngs, **options
    )


def _fill(model: ImageClassifier, arrays: Mapping[TensorPath, np.ndarray]) -> None:
    # jnp.asarray would compile a program for each shape.
    nnx.update(model, nnx.from_flat_state([(path, jax.device_put(array)) for path, array in arrays.items()]))


def _refuse_run_of_another(weights: str | os.PathLike | Mapping[str, Any], name: str) -> None:
    if isinstance(weights, Mapping) or not os.path.isdir(weights):
        return
    run, entry = read_run(weights), registry.find(name)
    if run.arch not in (entry.name, entry.qualified):
        options = "".join(f" {option} {value}" for option, value in run.options.items())
        raise WeightsError(
            f"{run.folder} is a run of {run.arch}, whose weights are not those of {name}; give --arch {run.arch}"
            f"{' --options' + options if options else ''}."
        )


def _first_of_stream(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if is_key else jnp.zeros(leaf.shape, leaf.dtype)


class _SameKey(nnx.RngStream):
    """Random keys that are all the same: where only shapes matter, telling them apart takes most of the time."""

    def __call__(self) -> jax.Array:
        return self.key[...]
