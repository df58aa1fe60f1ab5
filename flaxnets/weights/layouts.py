"""Matches a checkpoint's tensors with a model's, whatever library named them, and names them for another."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets.errors import WeightsError
from flaxnets.plugin import ImageClassifier, Layout

logger = logging.getLogger("flaxnets")

# The layout of the model itself, with names such as "stages.0.1.first.convolution.kernel".
OWN = "flaxnets"
# PyTorch's words for what a module holds, and the order of a kernel's axes there: OIHW for HWIO.
WORDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
# A count that PyTorch's batch norm keeps and does not use.
UNUSED = ".num_batches_tracked"

TensorPath = tuple[Any, ...]
Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a tensor of the model is in a layout.

    Attributes:
      path: in the model.
      name: in the layout.
      shape: there; axes of size 1 at the end (1x1 convolutions) may be missing.
      axes: which of the model's axes each axis of the layout is.
    """

    path: TensorPath
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def fits(self, array: np.ndarray) -> bool:
        """Whether an array of the layout has the right shape."""
        return _without_pixels(array.shape) == _without_pixels(self.shape)

    def read(self, array: np.ndarray) -> np.ndarray:
        """The array [layout's axes] as the model holds it: a new array, float32."""
        turned = array.reshape(self.shape[: len(self.axes)]).transpose(np.argsort(self.axes))
        return np.array(turned, np.float32, order="C")

    def write(self, array: np.ndarray) -> np.ndarray:
        """The model's array as the layout holds it."""
        return np.ascontiguousarray(array.transpose(self.axes)).reshape(self.shape)


def slots(model: ImageClassifier, layout: Layout | None) -> list[Slot]:
    """Every parameter and running average of a model, in a layout; None for the model's own."""
    weights = nnx.state(model, nnx.Not(nnx.RngState))  # dropout's random streams are no weights
    return [_slot(model, layout, path, variable.shape) for path, variable in nnx.to_flat_state(weights)]


def recognise(
    model: ImageClassifier, tensors: Tensors, layouts: Mapping[str, Layout], name: str
) -> tuple[Layout | None, list[Slot]]:
    """The layout that a checkpoint's names are in, None for the model's own, and the model's tensors in it.

    Raises:
      WeightsError: most of its names belong to no layout.
    """
    candidates = [(layout, slots(model, layout)) for layout in (None, *layouts.values())]
    found = max(candidates, key=lambda candidate: _shared(candidate, tensors))
    if 2 * _shared(found, tensors) < min(len(tensors), len(found[1])):
        examples = ", ".join(
            f"{label} ({wanted[0].name})" for label, (_, wanted) in zip((OWN, *layouts), candidates, strict=True)
        )
        raise WeightsError(
            f"The weights have other names than those of {name}, such as {', '.join(list(tensors)[:3])}. Give weights "
            f"of that architecture in one of its layouts: {examples}."
        )
    return found


def sizes(
    models: tuple[ImageClassifier, ImageClassifier], tensors: Tensors, layouts: Mapping[str, Layout], name: str
) -> dict[int, int]:
    """What a checkpoint has for each size in which two models of its architecture differ.

    Args:
      models: the same but, say, for 1000 or 1001 classes: then {1000: 10} says that the checkpoint is of 10.
      tensors, layouts, name: as in `match`.

    Raises:
      WeightsError: most of the checkpoint's names belong to no layout.
    """
    layout, wanted = recognise(models[0], tensors, layouts, name)
    return {
        size: there
        for slot, other in zip(wanted, slots(models[1], layout), strict=True)
        if slot.name in tensors
        for size, changed, there in zip(slot.shape, other.shape, tensors[slot.name].shape, strict=False)
        if size != changed
    }


def match(
    model: ImageClassifier, tensors: Tensors, layouts: Mapping[str, Layout], name: str
) -> dict[TensorPath, np.ndarray]:
    """The model's tensors out of a checkpoint, as the model holds them; new arrays, float32.

    Args:
      model: what to fill; its values are not read.
      tensors: the checkpoint, see `read_weights`.
      layouts: of the model's architecture; the right one is recognised.
      name: of the architecture, for messages.

    Returns:
      Arrays by path. Those of the classifier are left out, with a warning, where it has other classes.

    Raises:
      WeightsError: tensors that are missing, that the model does not have, or of another shape: all of them at once.
    """
    tensors = {key: array for key, array in tensors.items() if not key.endswith(UNUSED)}
    layout, wanted = recognise(model, tensors, layouts, name)
    left_out = _other_classifier(model, tensors, layout, wanted)
    wanted = [slot for slot in wanted if slot.name not in left_out]

    present = [slot for slot in wanted if slot.name in tensors]
    shapes = [slot for slot in present if not slot.fits(tensors[slot.name])]
    kinds = [slot.name for slot in present if not jnp.issubdtype(tensors[slot.name].dtype, jnp.floating)]
    problems = {
        "missing": [slot.name for slot in wanted if slot.name not in tensors],
        "not in the model": sorted(tensors.keys() - left_out - {slot.name for slot in wanted}),
        "of another shape": [
            f"{slot.name} {list(tensors[slot.name].shape)} in place of {list(slot.shape)}" for slot in shapes
        ],
        "no real numbers": [f"{key} {tensors[key].dtype}" for key in kinds],
    }
    if any(problems.values()):
        found = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
        raise WeightsError(
            f"The weights do not fit {name}. {found[0].upper()}{found[1:]}. Give the name, channels and options of the "
            "network that they belong to."
        )
    if left_out:
        classes = " and ".join(f"{key} {list(tensors[key].shape)}" for key in sorted(left_out))
        logger.warning(
            "The weights are of other classes (%s): %s",
            classes,
            "the classifier keeps its initial values."
            if model.classifier is not None
            else "this model has no classifier.",
        )
    return {slot.path: slot.read(tensors[slot.name]) for slot in wanted}


def _slot(model: ImageClassifier, layout: Layout | None, path: TensorPath, shape: tuple[int, ...]) -> Slot:
    *module, leaf = map(str, path)
    same = tuple(range(len(shape)))
    if layout is None:
        return Slot(path, ".".join(map(str, path)), shape, same)
    name = layout.name(tuple(module), model)
    axes = AXES.get(len(shape), same) if leaf == "kernel" else same
    turned = tuple(shape[axis] for axis in axes)
    if len(axes) == 2 and name.rpartition(".")[2] in layout.pointwise:
        turned += (1, 1)
    return Slot(path, f"{name}.{WORDS.get(leaf, leaf)}", turned, axes)


def _without_pixels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else shape


def _shared(candidate: tuple[Layout | None, list[Slot]], tensors: Tensors) -> int:
    """How many of a layout's names a checkpoint has."""
    return sum(slot.name in tensors for slot in candidate[1])


def _other_classifier(model: ImageClassifier, tensors: Tensors, layout: Layout | None, wanted: list[Slot]) -> set[str]:
    """Names of the checkpoint's classifier, if it is like the model's except for the number of classes."""
    prefix = "classifier" if layout is None else layout.name(("classifier",), model)
    given = {key: array.shape for key, array in tensors.items() if key.rpartition(".")[0] == prefix}
    if model.classifier is None:
        return set(given)
    expected = {slot.name: slot.shape for slot in wanted if slot.path[0] == "classifier"}
    axis = -1 if layout is None else 0
    if given.keys() != expected.keys() or not all(given.values()) or given == expected:
        return set()
    classes = {shape[axis] for shape in given.values()}
    alike = all(_other_size(shape, axis) == _other_size(expected[key], axis) for key, shape in given.items())
    return set(given) if alike and len(classes) == 1 else set()


def _other_size(shape: tuple[int, ...], axis: int) -> list[int]:
    """The sizes without one axis."""
    sizes = list(shape)
    del sizes[axis]
    return sizes
