"""Orbax checkpoints: the newest few and the best, written while training goes on."""

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
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, step: int, state: TrainState, accuracy: float | None = None) -> None:
        """Write the state of a step in the background; `accuracy` on the test set, where it was measured."""
        metrics = None if accuracy is None else {"accuracy": accuracy}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def restore_latest(self, like: TrainState) -> TrainState:
        """The newest readable state, placed as `like`; a damaged checkpoint is set aside as `damaged-STEP`.

        Raises:
          RunFolderError: there is no checkpoint, or none that can be read.
        """
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return cast(TrainState, self._manager.restore(step, args=ocp.args.StandardRestore(target)))
            except Exception as error:  # whatever the file formats below make of damaged bytes
                reason = str(error).strip().split("\n")[0]
                logger.warning("Checkpoint %d is damaged, trying the one before: %s", step, reason)
                self._set_aside(step)
        raise RunFolderError(
            f"No checkpoint in {self._folder} can be restored ({len(steps)} tried); train anew under another --name."
        )

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

    def _set_aside(self, step: int) -> None:
        # Training will write this step again, which Orbax refuses while its folder stands; and the damaged one may
        # still be of use to its owner.
        (self._folder / str(step)).rename(self._folder / f"damaged-{step}")
        self._manager.close()
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)
