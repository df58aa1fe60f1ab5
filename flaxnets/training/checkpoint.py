"""Orbax checkpoints: the newest few and the best, written while training goes on."""

import itertools
import json
import logging
from pathlib import Path
from typing import cast

import jax
import orbax.checkpoint as ocp

from flaxnets.errors import RunFolderError
from flaxnets.training.state import TrainState

logger = logging.getLogger(__name__)


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Args:
      folder: made if it does not exist.
      keep: newest checkpoints to keep; the one of the highest test accuracy is kept besides.
    """

    def __init__(self, folder: Path, keep: int):
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
        self._manager = self._open()

    def save(self, step: int, state: TrainState, accuracy: float | None = None) -> None:
        """Write the state of a step in the background; `accuracy` on the test set, where it was measured."""
        metrics = None if accuracy is None else {"accuracy": accuracy}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def add_accuracy(self, step: int, accuracy: float) -> None:
        """State the accuracy of a step that was saved without: the run had been stopped in its evaluation."""
        self._manager.wait_until_finished()
        file = self._folder / str(step) / "metrics" / "metrics"  # where Orbax looks for it
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"accuracy": accuracy}))
        temporary.replace(file)
        self._manager.reload()

    def restore_latest(self, like: TrainState) -> TrainState:
        """The newest readable state, placed as `like`; a damaged checkpoint is set aside as `damaged-STEP`.

        Returns:
          `like` itself where none was written yet: the run was stopped before its first checkpoint.

        Raises:
          RunFolderError: there were checkpoints, and none can be read.
        """
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return cast(TrainState, self._manager.restore(step, args=ocp.args.StandardRestore(target)))
            except Exception as error:  # whatever the file formats below make of damaged bytes
                self._manager.close()
                self._set_aside(step, str(error).strip().split("\n")[0])
                self._manager = self._open()
        if not any(self._folder.glob("damaged-*")):
            return like
        raise RunFolderError(f"No checkpoint in {self._folder} can be restored; train anew under another --name.")

    def best(self) -> tuple[int, float] | None:
        """Step and test accuracy of the best checkpoint, or None before the first evaluation."""
        self._manager.wait_until_finished()
        step = self._manager.best_step()
        metrics = None if step is None else self._manager.metrics(step)
        return None if step is None or metrics is None else (step, metrics["accuracy"])

    def newest(self) -> int | None:
        """The newest step that is safely written, or None."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        for file in self._folder.glob("*/metrics/metrics"):
            step = file.parents[1].name
            try:
                json.loads(file.read_bytes())
            except ValueError:  # Orbax reads the metrics of all steps at once, and would open none
                if step.isdigit():
                    self._set_aside(step, "its metrics are not JSON")
        return ocp.CheckpointManager(self._folder, options=self._options)

    def _set_aside(self, step: int | str, reason: str) -> None:
        """Rename a damaged checkpoint: training will write its step again, and its owner may still have use for it."""
        names = (f"damaged-{step}" + "-again" * times for times in itertools.count())
        aside = next(path for path in map(self._folder.joinpath, names) if not path.exists())
        logger.warning("Checkpoint %s is damaged, now %s, and the one before is used: %s", step, aside.name, reason)
        (self._folder / str(step)).rename(aside)
