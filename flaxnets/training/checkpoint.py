"""Orbax checkpoints: the newest few and the best, written while training goes on, and verified when they are read."""

import contextlib
import importlib.metadata
import itertools
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import jax
import orbax.checkpoint as ocp

from flaxnets.errors import RunFolderError
from flaxnets.training import memory, mesh, processes
from flaxnets.training.state import TrainState
from flaxnets.weights.checksums import by_path, checksums, verify
from flaxnets.weights.packing import FORMAT, layout, pack, unpack, with_layout

METADATA_KEYS = {"item_handlers", "metrics", "performance_metrics", "custom_metadata"}  # of Orbax, for a step
METADATA_KEYS |= {"init_timestamp_nsecs", "commit_timestamp_nsecs"}
LONGEST_REASON = 300  # characters

logger = logging.getLogger(__name__)


class Checkpoints:
    """The folder `checkpoints/` of a run.

    All processes write it, and call each method together.

    A checkpoint that cannot be written is no reason to stop: there is a warning, those before it stay, and the next
    `save` tries again. `close` complains if the last one failed.

    Args:
      folder: made if it does not exist.
      keep: newest checkpoints to keep; the one of the highest test accuracy is kept besides.
      saved: called with each step that is safe on the disk, from a thread of its own.
    """

    def __init__(self, folder: Path, keep: int, saved: Callable[[int], object] = lambda step: None):
        self._folder = folder.absolute()
        managers = ocp.checkpoint_managers
        best = managers.BestN(
            get_metric_fn=lambda metrics: metrics["accuracy"], n=1, keep_checkpoints_without_metrics=False
        )
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(keep), best]),
            best_fn=lambda metrics: metrics["accuracy"],
            cleanup_tmp_directories=True,  # what a kill in mid-save left behind
        )
        self._saved = saved
        self._pack = jax.jit(pack)
        self._background = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self._failure: tuple[int, str] | None = None  # of the last save: its step, and why
        self._manager = self._open()

    def save(self, step: int, state: TrainState, accuracy: float | None = None) -> None:
        """Write the state of a step in the background; `accuracy` on the test set, where it was measured."""
        self._settle()
        vectors, described = self._pack(state), layout(state)
        facts = {"flaxnets": importlib.metadata.version("flaxnets"), "format": FORMAT, "layout": described}
        try:
            self._manager.save(
                step,
                args=ocp.args.PyTreeSave(vectors),
                metrics=None if accuracy is None else {"accuracy": accuracy},
                custom_metadata={**facts, "checksums": checksums(with_layout(vectors, described))},
            )
        except (OSError, ValueError) as error:
            self._fail(step, error)
        else:
            self._saving = self._background.submit(self._complete, step)

    def add_accuracy(self, step: int, accuracy: float) -> None:
        """State the accuracy of a step that was saved without: the run had been stopped in its evaluation."""
        self._settle()
        if processes.is_first():
            file = self._folder / str(step) / "metrics" / "metrics"  # where Orbax looks for it
            file.parent.mkdir(exist_ok=True)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps({"accuracy": accuracy}))
            temporary.replace(file)
        processes.any_of(False)  # the others wait for the first
        self._manager.reload()

    def restore_latest(self, like: TrainState) -> TrainState:
        """The newest state that reads as it was written, placed as `like`; a damaged one is renamed `damaged-STEP`.

        Returns:
          `like` itself where none was written yet: the run was stopped before its first checkpoint.

        Raises:
          RunFolderError: there were checkpoints, and none can be read; or they are of another network or version.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        others = [self._of_another(step, like) for step in steps]
        if steps and all(others):
            raise RunFolderError(f"The checkpoints in {self._folder} are {others[0]}.")
        for step in steps:
            state, reason = None, "another process cannot read it"
            try:
                state = self._restore(step, like)
            except Exception as error:  # whatever the file formats below make of damaged bytes
                if memory.is_exhausted(error):  # which is no fault of the file
                    raise
                reason = _reason(error)
            if not processes.any_of(state is None):
                return cast(TrainState, state)
            self._manager.close()
            if processes.is_first():
                self._set_aside(step, reason)
            processes.any_of(False)  # the others wait for the first
            self._manager = self._open()
        if not any(self._folder.glob("damaged-*")):
            return like
        raise RunFolderError(f"No checkpoint in {self._folder} can be restored; train anew under another --name.")

    def best(self) -> tuple[int, float] | None:
        """Step and test accuracy of the best checkpoint, or None before the first evaluation."""
        self._settle()
        step = self._manager.best_step()
        metrics = None if step is None else self._manager.metrics(step)
        return None if step is None or metrics is None else (step, metrics["accuracy"])

    def newest(self) -> int | None:
        """The newest step that is safely written, or None."""
        self._settle()
        return self._manager.latest_step()

    def close(self) -> None:
        """Wait for what is being written. Raises RunFolderError if the last state could not be."""
        failure = self._wait()
        newest = self.newest()
        self._manager.close()
        self._background.shutdown()
        if failure:
            step, reason = failure
            before = "nothing was saved before" if newest is None else f"the newest saved one is {newest}"
            raise RunFolderError(
                f"Step {step} could not be saved in {self._folder} ({reason}); {before}. Mend that, and continue by "
                "--resume."
            )

    def _open(self) -> ocp.CheckpointManager:
        """Orbax's manager. It reads small files of all steps at once, and would open none where one is damaged."""
        for file in self._folder.glob("*/metrics/metrics"):
            self._set_aside_unless(_json_keys(file) is not None, file.parents[1])
        try:
            return self._manager_of_folder()
        except ValueError:
            for file in self._folder.glob("*/_CHECKPOINT_METADATA"):
                self._set_aside_unless((_json_keys(file) or set()) <= METADATA_KEYS, file.parent)
            processes.any_of(False)  # the others wait for the first
            return self._manager_of_folder()

    def _manager_of_folder(self) -> ocp.CheckpointManager:
        # Compression would take time from the training, and would save a tenth of the disk.
        handler = ocp.PyTreeCheckpointHandler(use_compression=False)
        return ocp.CheckpointManager(self._folder, options=self._options, item_handlers=handler)

    def _set_aside_unless(self, good: bool, step_folder: Path) -> None:
        if not good and step_folder.name.isdigit() and processes.is_first():
            self._set_aside(step_folder.name, "its metadata are not as they were written")

    def _complete(self, step: int) -> None:
        """Wait until a step is written, see that it outlives a power failure, and say so."""
        try:
            self._manager.wait_until_finished()
            for path in (*(self._folder / str(step)).rglob("*"), self._folder / str(step), self._folder):
                _flush(path)
        except (OSError, ValueError) as error:
            self._fail(step, error)
        else:
            self._failure = None
            self._saved(step)

    def _fail(self, step: int, error: Exception) -> None:
        reason = _reason(error)
        self._failure = step, reason
        logger.warning("Step %d could not be saved: %s. Training goes on, and the next save tries again.", step, reason)

    def _wait(self) -> tuple[int, str] | None:
        """Wait for the last save, and tell whether and why it failed."""
        if self._saving:
            self._saving.result()
        return self._failure

    def _settle(self) -> None:
        """Wait for the last save; after a failure, begin again with what is on the disk."""
        if processes.any_of(self._wait() is not None):
            for _ in range(5):  # each part of the manager tells of the failure once more
                with contextlib.suppress(OSError, ValueError):
                    self._manager.close()
                    break
            self._manager = self._open()

    def _facts(self, step: int) -> dict[str, Any]:
        """What `save` said of a step; empty where that cannot be read."""
        try:
            return self._manager.metadata(step).custom_metadata or {}
        except Exception:  # damaged; reading the state says so
            return {}

    def _of_another(self, step: int, like: TrainState) -> str | None:
        """In which way a checkpoint is not one of this run; None if it is."""
        facts = self._facts(step)
        if facts.get("format", FORMAT) != FORMAT:
            version = facts.get("flaxnets")
            return f"by flaxnets {version}, which keeps them in another form; continue the run with that version"
        layouts = layout(like), facts.get("layout", layout(like))
        here, there = ({path: shape for path, _, shape in of} for of in layouts)
        differing = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
        if not differing:
            return None
        name = differing[0]
        shapes = [" x ".join(map(str, of[name])) if name in of else "absent" for of in (there, here)]
        return (
            f"of another network: {name} is {shapes[0]} there and {shapes[1]} here; give the settings and the data "
            "that they were made with, or another --name"
        )

    def _restore(self, step: int, like: TrainState) -> TrainState:
        target = mesh.shapes(jax.eval_shape(self._pack, like), like.step.sharding)
        places = ocp.checkpoint_utils.construct_restore_args(target)
        vectors: Any = self._manager.restore(step, args=ocp.args.PyTreeRestore(target, places))
        facts = self._facts(step)
        described = facts.get("layout") or []
        verify(with_layout(vectors, described), facts.get("checksums") or {})
        arrays = jax.jit(lambda vectors: unpack(vectors, described), out_shardings=like.step.sharding)(vectors)
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in by_path(like)])

    def _set_aside(self, step: int | str, reason: str) -> None:
        """Rename a damaged checkpoint: training will write its step again, and its owner may still have use for it."""
        names = (f"damaged-{step}" + "-again" * times for times in itertools.count())
        aside = next(path for path in map(self._folder.joinpath, names) if not path.exists())
        logger.warning("Checkpoint %s is damaged, now %s, and the one before is used: %s", step, aside.name, reason)
        (self._folder / str(step)).rename(aside)


def _json_keys(file: Path) -> set[str] | None:
    """The keys of a JSON object in a file; None if it holds none."""
    try:
        return set(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    """An error in few words; TensorStore adds its whole configuration."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0].split(" [tensorstore_spec")[0]
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON // 2]} ... {text[-LONGEST_REASON // 2 :]}"


def _flush(path: Path) -> None:
    """Have the system write a file or a folder's list of files to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
