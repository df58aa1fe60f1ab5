"""Run folders as a source of weights: what run.json says of the network, and the tensors of the best checkpoint."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from flaxnets.errors import RunFolderError


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run folder with at least one checkpoint; nothing of the checkpoint is read yet.

    Attributes:
      folder: the run folder.
      arch, options: of the network; with `len(class_names)` and `channels` they are what `flaxnets.create` needs.
      class_names: one a logit.
      mean, std: statistics of the training images, a number a channel, images in [0, 1].
      image_size: height and width of test images, in pixels.
      step: of the best checkpoint, by accuracy on the test set; of the newest where none was measured.
      accuracy: of that checkpoint, in [0, 1]; None where it was not measured.
      record: all of run.json.
    """

    folder: Path
    arch: str
    options: dict[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    step: int
    accuracy: float | None
    record: dict[str, Any]

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return len(self.mean)

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and running averages by name, such as `stem.norm.mean`, in flaxnets' own layout.

        Where the run keeps averages of its parameters, it is those. The optimiser's state is not read.

        Raises:
          RunFolderError: the checkpoint is damaged, or of another version of flaxnets.
        """
        try:
            return _read(self.folder.absolute() / "checkpoints" / str(self.step))
        except RunFolderError:
            raise
        except Exception as error:  # whatever the file formats below make of damaged bytes
            raise RunFolderError(
                f"The checkpoint of step {self.step} in {self.folder} is damaged ({type(error).__name__}); move its "
                f"folder checkpoints/{self.step} away to use the next best."
            ) from error


def read_run(folder: str | os.PathLike) -> TrainedRun:
    """What a run folder holds. Raises RunFolderError where there is no run, or no checkpoint yet."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "run.json").read_text())
        facts = {
            "arch": record["run"]["arch"],
            "options": record["run"]["options"],
            "class_names": tuple(record["class_names"]),
            "mean": tuple(record["mean"]),
            "std": tuple(record["std"]),
            "image_size": record["run"]["data"].get("test_image_size") or record["run"]["data"]["image_size"],
        }
        words = (facts["arch"], *facts["class_names"])
        numbers = (facts["image_size"], *facts["mean"], *facts["std"])
        kinds = ((words, str), (numbers, int | float), ([facts["options"]], dict))
        if not all(isinstance(value, kind) for values, kind in kinds for value in values):
            raise TypeError("a value of another type")
    except OSError as error:
        raise RunFolderError(f"There is no run in {folder}; give a folder that `flaxnets train` wrote.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder) from error
    steps = {int(path.name): _accuracy(path) for path in folder.glob("checkpoints/*") if path.name.isdigit()}
    if not steps:
        raise RunFolderError(f"The run in {folder} has no checkpoint yet; wait for its first evaluation, or resume it.")
    best = max(steps, key=lambda step: (-1.0 if steps[step] is None else steps[step], step))
    return TrainedRun(folder=folder, **facts, step=best, accuracy=steps[best], record=record)


def damaged(folder: Path) -> RunFolderError:
    """What to raise where run.json is not as training wrote it."""
    return RunFolderError(f"{folder / 'run.json'} is damaged; give another run.")


def _accuracy(checkpoint: Path) -> float | None:
    try:
        return json.loads((checkpoint / "metrics" / "metrics").read_text())["accuracy"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(checkpoint: Path) -> dict[str, np.ndarray]:
    """Tensors by name, out of what Orbax stored of a TrainState."""
    import jax  # and Orbax: a second, which weights in files need not wait for
    import orbax.checkpoint as ocp

    from flaxnets.weights.checksums import verify
    from flaxnets.weights.packing import FORMAT, unpack, with_layout

    facts = json.loads((checkpoint / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    if facts["format"] != FORMAT:
        raise RunFolderError(
            f"{checkpoint} was written by flaxnets {facts['flaxnets']} in another form; read it with that version."
        )
    handler: Any = ocp.PyTreeCheckpointHandler()
    try:
        stored = handler.metadata(checkpoint / "default").tree
        parts = {"average"} & stored.keys() or {"params", "batch_stats"}
        target = {part: vectors for part, vectors in stored.items() if part in parts}
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
        arguments = ocp.args.PyTreeRestore(item=target, restore_args=numpy, partial_restore=True)
        vectors = handler.restore(checkpoint / "default", args=arguments)
    finally:
        handler.close()
    verify(with_layout(vectors, facts["layout"]), facts["checksums"])
    paths = {path.removeprefix("average/"): array for path, array in unpack(vectors, facts["layout"]).items()}
    return {path.partition("/")[2].replace("/", "."): array for path, array in paths.items()}
