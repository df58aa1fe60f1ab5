"""TensorFlow Lite: makes such files of JAX functions, tells their operators, and runs them."""

import collections
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxnets.errors import ArchitectureError, ConfigError, WeightsError, printable
from flaxnets.tools import tflite_converter

if TYPE_CHECKING:
    import jax
    import jax.export

IDENTIFIER = b"TFL3"  # of such files, at the fifth byte
PRECISIONS = ("float32", "float16", "dynamic-range", "int8")


def require_extra() -> None:
    """Raise ConfigError where TensorFlow's converter or LiteRT's interpreter is not installed; neither is imported."""
    missing = [name for name in ("tensorflow", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"TensorFlow Lite needs {' and '.join(missing)}, which the plain installation lacks: "
            'run `pip install "flaxnets[tflite]"`.'
        )


def convert(
    compute: "Callable[[jax.Array], jax.Array]",
    shape: tuple[int, ...],
    *,
    pixels: bool = False,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
) -> bytes:
    """A .tflite file of a function of images.

    Args:
      compute: of one array.
      shape: of its images, [1, h, w, c].
      pixels: whether the file takes uint8 images, and float32 ones else.
      precision: `float32`; `float16` for weights that are stored as such; `dynamic-range` for weights of int8, where
        activations become int8 as they come, in operators that have a way to do so; `int8` for all arithmetic in
        whole numbers (Jacob et al. 2017, arXiv:1712.05877), with a scale for each output channel.
      calibration: float32 images [n, h, w, c], from whose activations the scales of int8 come.

    Raises:
      ArchitectureError: TensorFlow Lite has no operator for something in the function.
      ConfigError: the extra `tflite` is not installed.
    """
    import jax
    import jax.export

    from flaxnets.layers.portable import portable

    require_extra()
    # A file of int8 begins with what float32 pixels go through; that they come as uint8 is said to the converter.
    dtype = "uint8" if pixels and precision != "int8" else "float32"
    with portable():
        program = jax.export.export(jax.jit(compute), platforms=["cpu"])(jax.ShapeDtypeStruct(shape, dtype))
    settings = {"shape": shape, "dtype": dtype, "precision": precision, "pixels": pixels}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / tflite_converter.PROGRAM).write_bytes(program.serialize())
        (folder / tflite_converter.SETTINGS).write_text(json.dumps(settings))
        if calibration is not None:
            np.save(folder / tflite_converter.CALIBRATION, calibration)
        quiet = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-P", "-m", tflite_converter.__name__, place]
        done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, errors="replace")
        failure = folder / tflite_converter.FAILURE
        if failure.exists():
            raise ArchitectureError(_cannot_convert(failure.read_text(), program))
        if done.returncode:
            raise RuntimeError(f"TensorFlow's converter ended with code {done.returncode}:\n{done.stderr[-4000:]}")
        content = _without_copies((folder / tflite_converter.RESULT).read_bytes())
    foreign = [name for name in operators(content) if name.startswith(("CUSTOM", "FLEX", "STABLEHLO"))]
    if foreign:
        raise ArchitectureError(_lacks(", ".join(foreign)))
    return content


def _cannot_convert(failure: str, program: "jax.export.Exported") -> str:
    """What TensorFlow Lite lacks, as the converter says it, or as the program does where that names only the whole."""
    found = re.search(r"'(?:vhlo|mhlo|stablehlo|tf|tfl)\.(\w+?)(?:_v\d+)?' (?:op is|that was)", failure)
    if found and found[1] != "XlaCallModule":
        place = re.search(r"([^\s:]+\.py):(\d+):\d+: error", failure)
        return _lacks(found[1] + (f" ({printable(place[1])}, line {place[2]})" if place else ""))
    names = re.findall(r"\bchlo\.(\w+)|custom_call @(\w+)", program.mlir_module())
    if names:
        return _lacks(", ".join(sorted({operator or target for operator, target in names})))
    first = failure.strip().splitlines()[0] if failure.strip() else "it does not say why"
    return (
        f"TensorFlow's converter cannot convert this network: {printable(first)}; choose another precision, or "
        "--format stablehlo."
    )


def _lacks(what: str) -> str:
    return f"TensorFlow Lite lacks an operator of this network: {what}; use another layer, or --format stablehlo."


def _without_copies(content: bytes) -> bytes:
    """The same file with equal vectors stored once: in int8 each channel else has a zero of 8 bytes, twice."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated  # pyright: ignore[reportMissingImports] (of an extra)

    class Builder(flatbuffers.Builder):
        def __init__(self):
            super().__init__(len(content))
            self._places: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 - the library's name
            key = (x.dtype.str, x.tobytes())
            if key not in self._places:
                self.Prep(16, x.nbytes)  # where the format wants weights to begin
                self._places[key] = super().CreateNumpyVector(x)
            return self._places[key]

    schema: Any = schema_py_generated
    builder = Builder()
    builder.Finish(schema.ModelT.InitFromPackedBuf(content, 0).Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def operators(content: bytes) -> dict[str, int]:
    """How many of each operator a file has, by TensorFlow Lite's names, such as DEPTHWISE_CONV_2D; most first."""
    from ai_edge_litert import schema_py_generated  # pyright: ignore[reportMissingImports] (of an extra)

    schema: Any = schema_py_generated
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.Model.GetRootAs(content)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    # Of an older file the code is in a field of one byte, which a newer one leaves at 127 where it does not fit.
    kinds = [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    used = (graph.Operators(index) for graph in graphs for index in range(graph.OperatorsLength()))
    return dict(collections.Counter(kinds[each.OpcodeIndex()] for each in used).most_common())


class Interpreter:
    """A .tflite file, ready to run on all cores that this process may use.

    Args:
      content: of the file.
      name: of the file, for messages.

    Attributes:
      inputs, outputs: shape and type of each array that goes in and out, such as `((1, 32, 32, 1), "uint8")`.

    Raises:
      WeightsError: it is no such file, or one that LiteRT cannot run.
      ConfigError: the extra `tflite` is not installed.
    """

    def __init__(self, content: bytes, name: str):
        require_extra()
        from ai_edge_litert import interpreter  # pyright: ignore[reportMissingImports] (of an extra)

        from flaxnets.data.loading import default_workers

        if len(content) < 16 or content[4:8] != IDENTIFIER:
            raise WeightsError(f"{name} is no TensorFlow Lite file; give one that `flaxnets export` wrote.")
        try:
            self._interpreter: Any = interpreter.Interpreter(model_content=content, num_threads=default_workers())
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = printable(str(error).strip().partition("\n")[0])
            raise WeightsError(
                f"LiteRT cannot run {name} ({reason}); export the network again, or with another --precision."
            ) from error
        ends = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        self.inputs, self.outputs = (
            [(tuple(each["shape"].tolist()), np.dtype(each["dtype"]).name) for each in end] for end in ends
        )
        self._input, self._output = (end[0]["index"] if end else None for end in ends)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output of a batch of images, which go through it one by one."""
        rows = []
        for image in images:
            self._interpreter.set_tensor(self._input, image[None])
            self._interpreter.invoke()
            rows.append(self._interpreter.get_tensor(self._output))
        return np.concatenate(rows)
