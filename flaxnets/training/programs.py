"""Keeps traced and compiled programs on disk, so that the second start of a run trains within seconds."""

import hashlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.export

from flaxnets.training import memory

# With YNNPACK, which JAX 0.12 uses on CPUs, a reduction of bfloat16 feature maps that is fused with what comes before
# it yields NaN.
WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
# JAX 0.10 keeps YNNPACK to products. With reductions, as in JAX 0.12, ResNets train 5 to 11 % faster; MobileNets gain
# nothing, and MobileNetV3's inference takes twice as long.
WITH_REDUCTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
# Of JAX 0.10's two ways to compile what is fused, its newer one makes the steps of MobileNets a sixth slower, and the
# older one compiles those of ResNets half as long again; JAX 0.12 has one way.
WITHOUT_FUSION_EMITTERS = {"xla_cpu_use_fusion_emitters": False}


def use_compilation_cache(folder: Path) -> Path | None:
    """Let JAX keep everything that it compiles in `folder`; None, and no cache, where that cannot be written."""
    made = cache_folder(folder)
    if made:
        jax.config.update("jax_compilation_cache_dir", str(made))
        # Building a model compiles dozens of small programs; reading them back takes a tenth of the time.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        # Of a disk that is full, JAX would tell for each of them; `save` tells once a step.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    return made


def cache_folder(folder: Path) -> Path | None:
    """The folder, made if it was not there; None, with a warning, where it cannot be written."""
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter of a user without a home
        reason = getattr(error, "strerror", None) or error
        logging.getLogger(__name__).warning("No compilation cache: cannot write %s (%s).", folder, reason)
        return None
    return folder


class Program:
    """A step that is compiled by `compile` or at its first call, or read back from disk.

    JAX's own cache saves the compiler's work but not the tracing, which takes as long on a small machine; so the traced
    program is kept too. It is found again only where everything that it was made from is the same: `settings`, shapes,
    devices, JAX's configuration, and the Python files of `code`.

    Args:
      step: jitted function of `(state, batch)`; returns `(new state, metrics)`, or metrics alone. Metrics are
        dictionaries of arrays. It is always called with the same shapes.
      donate_state: whether the new state may take the memory of the old one.
      cache: folder of kept programs; None traces anew.
      code: the Python files that the step is written in, see `loaded_files`.
      settings: whatever else shaped the step, as JSON values.
    """

    def __init__(
        self,
        step: Callable[[Any, Any], Any],
        *,
        donate_state: bool,
        cache: Path | None,
        code: Iterable[str],
        settings: dict[str, Any],
    ):
        self._step = step
        self._donate_state = donate_state
        self._cache = cache
        self._code = code
        self._settings = settings
        self._compiled: Any = None  # what JAX compiled

    def __call__(self, state: Any, batch: Any) -> Any:
        """Run the step on a state and a batch that lie on the devices.

        Once it is compiled, the list of the state's arrays does as well, and the new state is such a list then. It is
        faster: to take the 500 dictionaries of a ResNet-50's state apart, and to make new ones, is .36 of the 1.25 ms
        that a step costs besides what it computes.
        """
        if not self._compiled:
            self.compile(state, batch)
        leaves, structure = jax.tree.flatten(state)
        leaves, metrics = self._compiled(leaves, batch)
        return (jax.tree.unflatten(structure, leaves), metrics) if leaves else metrics

    def compile(self, state: Any, batch: Any) -> None:
        """Compile for a state and a batch, or for their shapes."""
        self.lower(state, batch)()

    def lower(self, state: Any, batch: Any) -> Callable[[], None]:
        """Trace for a state and a batch, or for their shapes, or read the traced program back.

        Returns: what compiles it. Tracing is Python throughout, compiling is not, so that a thread can compile while
          others work. It raises MemoryError where a device has not the memory for the step.
        """
        leaves, structure = jax.tree.flatten(state)

        def flat_step(leaves: list[jax.Array], batch: Any):
            # The export format knows lists and dictionaries, but not TrainState or optax's own types.
            result = self._step(jax.tree.unflatten(structure, leaves), batch)
            return (jax.tree.leaves(result[0]), result[1]) if isinstance(result, tuple) else ([], result)

        file = self._cache and self._cache / f"{fingerprint(self._settings, state, batch, self._code)}.exported"
        exported = _load(file) if file else None
        if exported is None:
            exported = jax.export.export(jax.jit(flat_step))(leaves, batch)
            if file:
                save(file, exported.serialize())

        def step(leaves: list[jax.Array], batch: Any):  # the name that profiles show
            return exported.call(leaves, batch)

        donated = 0 if self._donate_state else ()
        lowered = jax.jit(step, donate_argnums=donated).lower(leaves, batch)
        options = _cpu_options(exported.mlir_module()) if jax.default_backend() == "cpu" else None

        def finish() -> None:
            self._compiled = lowered.compile(compiler_options=options)
            memory.require(self.memory_bytes())

        return finish

    def memory_bytes(self) -> int:
        """Arguments, results and temporary memory of the compiled step on one device, in bytes."""
        taken: Any = self._compiled.memory_analysis()
        sizes = (taken.argument_size_in_bytes, taken.output_size_in_bytes, taken.temp_size_in_bytes)
        return sum(sizes) - taken.alias_size_in_bytes


def _cpu_options(module: str) -> Any:
    """What the compiler must do otherwise for a traced program."""
    older = jax.__version_info__ < (0, 11)
    depthwise = "@shifted" in module  # see `flaxnets.layers.lowerings`
    options = WITHOUT_FUSION_EMITTERS if older and depthwise else {}
    if "bf16" in module:
        return options | WITHOUT_YNNPACK
    return options | WITH_REDUCTIONS if older and not depthwise else options


def fingerprint(settings: dict[str, Any], state: Any, batch: Any, code: Iterable[str]) -> str:
    """A name for everything that a traced step depends on: arguments as of `Program` and `Program.compile`."""
    arrays = jax.tree.leaves((state, batch))
    stats = [(file, os.stat(file)) for file in sorted(code)]
    parts = {
        "settings": settings,
        "arguments": [(array.shape, str(array.dtype), str(array.sharding)) for array in arrays],
        "structure": str((jax.tree.structure(state), jax.tree.structure(batch))),
        "convolutions": os.environ.get("FLAXNETS_CONV"),
        "devices": sorted({device.device_kind for array in arrays for device in array.sharding.device_set}),
        "configuration": {name: str(value) for name, value in jax.config.values.items()},
        "code": [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def loaded_files() -> set[str]:
    """The files of all Python modules that are loaded now."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file for file in files if file and os.path.exists(file)}


def _load(file: Path) -> jax.export.Exported | None:
    """The kept program, or None where there is none or it is damaged: then it is made anew."""
    try:
        return jax.export.deserialize(bytearray(file.read_bytes()))
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged cache costs time, nothing else
        logging.getLogger(__name__).warning("Ignoring the damaged cache file %s: %s", file, error)
        return None


def save(file: Path, content: bytes | bytearray) -> None:
    """Write a file of the cache, all of it or nothing; a cache that cannot be written costs time, nothing else."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent)  # a name of its own, whatever machine shares the folder
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
        os.replace(temporary, file)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        logging.getLogger(__name__).warning("Cannot write the compilation cache %s: %s.", file.parent, error.strerror)
