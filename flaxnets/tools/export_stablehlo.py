"""One StableHLO program for CPU, CUDA and TPU, of batches of any size, in the form of `jax.export`."""

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxnets.errors import ArchitectureError, WeightsError
from flaxnets.tools import exported

if TYPE_CHECKING:
    import jax.export

    from flaxnets.tools.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")
# Custom calls are code outside the program, some of them at addresses that the program itself names. Layers have no
# need of them; what JAX writes for a batch of unknown size has this one, which compiles to nothing.
CUSTOM_CALLS = {"shape_assertion"}


def add_options(parser: argparse._ActionsContainer) -> None:
    """Nothing: the options of all exported files suffice."""


def files(network: "Trained", arguments: argparse.Namespace) -> dict[str, bytes]:
    """The program and its description, by name.

    Args:
      network: with batch norm.
      arguments: with the options of `exported.add_options`.

    Raises:
      ArchitectureError: a layer cannot be exported.
    """
    import jax
    import jax.export

    (batch,) = jax.export.symbolic_shape("batch")
    described = exported.describe(network, arguments)
    images = jax.ShapeDtypeStruct(described.input_shape(batch), described.input_type)
    function = jax.jit(exported.function(network, arguments))
    try:
        program = jax.export.export(function, platforms=PLATFORMS)(images)
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ArchitectureError(
            f"{network.arch} has a layer that does something else for some numbers of images "
            f"({str(error).splitlines()[0]}), so no program can be for all; mend the layer."
        ) from error
    except ValueError as error:
        if "custom calls" not in str(error):
            raise
        raise _calls_out(network, "some") from error
    if calls := custom_calls(program) - CUSTOM_CALLS:
        raise _calls_out(network, ", ".join(sorted(calls)))
    content = bytes(program.serialize())
    return exported.files("stablehlo", content, exported.describe(network, arguments, content))


def _calls_out(network: "Trained", calls: str) -> ArchitectureError:
    return ArchitectureError(
        f"{network.arch} has a layer that calls code outside the program ({calls}), which a file cannot hold; make "
        "it of JAX's own operations."
    )


def load(content: bytes, description: exported.Description, name: str) -> exported.Compute:
    """The function of a batch that the program computes; it is compiled at the first batch of each size.

    Args:
      content: of the file.
      description: the program has to have the input and the output that it says.
      name: of the file, for messages.

    Raises:
      WeightsError: it is no such program, not for this machine, or calls code outside itself.
    """
    import jax
    import jax.export

    try:
        program = jax.export.deserialize(bytearray(content))
        calls = custom_calls(program)
    except Exception as error:  # whatever the parsers below make of bytes that are no program, or of another version
        raise WeightsError(
            f"{name} is no program that JAX {jax.__version__} can read ({type(error).__name__}); export the network "
            "again with this version of JAX, or use the version that wrote it."
        ) from error
    if calls - CUSTOM_CALLS or program.ordered_effects or program.unordered_effects:
        found = ", ".join(sorted(calls - CUSTOM_CALLS)) or "effects"
        raise WeightsError(
            f"{name} calls code outside itself ({found!a}), which no classifier needs; do not trust it, and give a "
            "file from another source."
        )
    if jax.default_backend() not in (platform := ["gpu" if each == "cuda" else each for each in program.platforms]):
        raise WeightsError(
            f"{name} is for {', '.join(platform)}, and this machine computes on {jax.default_backend()}; set "
            "JAX_PLATFORMS, or export the network again."
        )
    wanted = [(description.input_shape("b"), description.input_type), (("b", len(description.class_names)), "float32")]
    held = [_kind(each) for each in (*program.in_avals, *program.out_avals)]
    if held != wanted or program.nr_devices != 1:
        raise WeightsError(
            f"{name} is a program of {_text(held)}, and its description says {_text(wanted)}; give both files of one "
            "export."
        )
    call = jax.jit(program.call)
    return lambda images: np.asarray(call(images))


def custom_calls(program: "jax.export.Exported") -> set[str]:
    """The targets of all custom calls in a program. Raises ValueError where it is damaged."""
    from jax.extend.mlir import ir
    from jax.extend.mlir.dialects import stablehlo

    found = set()

    def look(operation: "ir.Operation") -> "ir.WalkResult":
        if operation.name.endswith("custom_call"):
            found.add(ir.StringAttr(operation.attributes["call_target_name"]).value)
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        context.attach_diagnostic_handler(lambda _: True)  # the error says it, not lines on standard error
        stablehlo.register_dialect(context)
        module = stablehlo.deserialize_portable_artifact(context, program.mlir_module_serialized)
        module.operation.walk(look)
    return found


def _kind(array: Any) -> tuple[tuple, str]:
    """Shape and type, where a size that is not fixed is `b`."""
    import jax.export

    with contextlib.suppress(AttributeError):
        return tuple("b" if jax.export.is_symbolic_dim(size) else size for size in array.shape), str(array.dtype)
    return (), "no array"


def _text(kinds: list[tuple[tuple, str]]) -> str:
    return " and ".join(f"{kind} [{', '.join(map(str, shape))}]" for shape, kind in kinds)
