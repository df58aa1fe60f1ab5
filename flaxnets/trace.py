"""Follows images through a model's program: which layer does which operation, at what cost, and how far it sees."""

import functools
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from flaxnets.errors import ArchitectureError
from flaxnets.hooks import Hook, hooked


class Reach(NamedTuple):
    """How far each pixel of a feature map sees, in each direction: (height, width) of pixels of the image."""

    field: tuple[int, ...]
    stride: tuple[int, ...]

    def through(self, window: tuple[int, ...], strides: tuple[int, ...]) -> "Reach":
        """The reach after a window has moved over the map."""
        field = tuple(f + (k - 1) * s for f, k, s in zip(self.field, window, self.stride, strict=True))
        return Reach(field, tuple(s * step for s, step in zip(self.stride, strides, strict=True)))


class Cost(NamedTuple):
    """What one operation does: multiply-adds for the batch, the reach of its output, and whether it moves a window."""

    macs: int
    reach: Reach
    is_window: bool


class Trace:
    """A model's program as JAX sees it, taken apart by layers. Modules have numbers, in the order of the model's parts.

    Attributes:
      paths, kinds: of every module.
      outputs: shape and type of what each called module returned, in the order of the first calls.
      costs: the operations on images that each called module does itself, in order.
      reach: of the model's output.

    Raises:
      ArchitectureError: the model cannot take such an input.
    """

    def __init__(self, model: nnx.Module, input_shape: tuple[int, ...]):
        graph, state = nnx.split(model)
        self.paths: list[tuple] = []
        self.kinds: list[str] = []
        self.outputs: dict[int, jax.ShapeDtypeStruct] = {}

        def run(state: Any, images: jax.Array) -> jax.Array:
            copy = nnx.merge(graph, state)
            hooks = {}
            for path, module in list(nnx.iter_modules(copy)):
                if callable(module):
                    hooks[module] = functools.partial(self._recorded, len(self.paths))
                self.paths.append(path)
                self.kinds.append(type(module).__name__)
            with hooked(hooks):
                return copy(images)  # pyright: ignore[reportCallIssue]

        try:
            program = jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct(input_shape, jnp.float32)).jaxpr
        except (TypeError, ValueError) as error:
            raise ArchitectureError(
                f"{type(model).__name__} cannot take an input of shape {input_shape}: {error} Give another image_size "
                "or in_channels."
            ) from error
        self.costs: dict[int, list[Cost]] = {layer: [] for layer in self.outputs}
        axes = (1,) * (len(input_shape) - 2)
        start = Reach(axes, axes)
        ends = self._follow(program, {program.invars[-1]: start}, self.paths.index(()))
        self.reach = next((end for end in ends if end), start)

    def _recorded(self, number: int, call: Hook, *arguments: Any, **keywords: Any) -> Any:
        """What module `number` returns; its operations bear the number in their names."""
        self.outputs.setdefault(number, jax.ShapeDtypeStruct((), jnp.float32))  # takes its place among the layers
        with jax.named_scope(f"layer_{number}_"):
            result = call(*arguments, **keywords)
        arrays = [leaf for leaf in jax.tree.leaves(result) if hasattr(leaf, "shape")]
        if arrays:
            self.outputs[number] = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
        return result

    def _follow(
        self, program: core.Jaxpr, reaches: dict[core.Var, Reach], layer: int, times: int = 1
    ) -> list[Reach | None]:
        """Notes the operations of a program that `layer` does `times` times, and returns the reach of its outputs.

        `reaches` holds the variables that depend on the images.
        """
        for equation in program.eqns:
            inputs = [reaches.get(v) if isinstance(v, core.Var) else None for v in equation.invars]
            seen = [reach for reach in inputs if reach]
            if not seen:
                continue
            scopes = re.findall(r"layer_(\d+)_", str(equation.source_info.name_stack))
            owner = int(scopes[-1]) if scopes else layer
            if inner := _inner_program(equation):
                pairs = zip(
                    reversed(inner.invars), reversed(inputs), strict=False
                )  # what comes before chooses or counts
                known = {variable: reach for variable, reach in pairs if reach}
                outputs = self._follow(inner, known, owner, times * equation.params.get("length", 1))
            else:
                macs, window = _operation(equation, len(seen))
                reach = Reach(*(tuple(map(max, zip(*each, strict=True))) for each in zip(*seen, strict=True)))
                reach = reach.through(*window) if window and len(window[0]) == len(reach.field) else reach
                outputs = [reach] * len(equation.outvars)
                self.costs[owner].append(Cost(macs * times, reach, window is not None))
            reaches |= {v: reach for v, reach in zip(equation.outvars, outputs, strict=False) if reach}
        return [reaches.get(v) if isinstance(v, core.Var) else None for v in program.outvars]


def _inner_program(equation: core.JaxprEqn) -> core.Jaxpr | None:
    """The program inside a call or a loop; of a choice by platform the last one, which holds on any."""
    if equation.primitive.name.startswith("reduce"):
        return None
    for name in ("branches", "call_jaxpr", "fun_jaxpr", "body_jaxpr", "jaxpr"):
        if name in equation.params:
            inner = equation.params[name]
            inner = inner[-1] if isinstance(inner, tuple) else inner
            return getattr(inner, "jaxpr", inner)
    return None


def _operation(equation: core.JaxprEqn, image_inputs: int) -> tuple[int, tuple | None]:
    """An operation's multiply-adds, and (window, strides) where it moves one over a feature map."""
    parameters, name = equation.params, equation.primitive.name
    shapes: list[tuple[int, ...]] = [getattr(v.aval, "shape", ()) for v in (*equation.invars, equation.outvars[0])]
    if name == "conv_general_dilated":
        kernel, numbers = shapes[1], parameters["dimension_numbers"]
        macs = math.prod(shapes[-1]) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        sizes = [kernel[axis] for axis in numbers.rhs_spec[2:]]
        window = tuple((k - 1) * d + 1 for k, d in zip(sizes, parameters["rhs_dilation"], strict=True))
        return macs, (window, parameters["window_strides"])
    if name == "dot_general" and image_inputs == 1:  # a product of two feature maps is no linear layer
        (contracted, _), _ = parameters["dimension_numbers"]
        return math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted), None
    if name.startswith("reduce_window"):
        return 0, (parameters["window_dimensions"][1:-1], parameters["window_strides"][1:-1])
    return 0, None
