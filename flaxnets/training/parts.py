"""The parts of an `ImageClassifier` by name: which of them a run leaves as they are, and the others' parameters."""

from collections.abc import Sequence
from typing import Any

from flaxnets.errors import ConfigError, did_you_mean
from flaxnets.models import in_mode
from flaxnets.plugin import ImageClassifier


def frozen_parts(model: ImageClassifier, freeze: Sequence[str]) -> tuple[str, ...]:
    """The parts that are frozen: those of `freeze`, and all that come before them, first ones first.

    Parts are `stem`, `stages.0`, `stages.1`, ..., `head` and `classifier`; `stages` is the last of its kind.

    Raises:
      ConfigError: there is no such part, or nothing would be left to train.
    """
    stages = [f"stages.{number}" for number in range(len(model.stages))]
    parts = ["stem", *stages, "head"]
    place = {part: number for number, part in enumerate(parts, start=1)} | {"stages": len(stages) + 1}
    for part in freeze:
        if part not in place:
            raise ConfigError(
                f"There is no part {part!r} to freeze.{did_you_mean(part, place)} Give --freeze one of "
                f"{', '.join(['stem', *stages, 'stages', 'head'])}; what comes before it is frozen too."
            )
    return tuple(parts[: max((place[part] for part in freeze), default=0)])


def infer_in_parts(model: ImageClassifier, frozen: Sequence[str]) -> None:
    """Put the frozen parts of a model into inference mode: running averages stay, nothing is dropped."""
    for part in frozen:
        name, _, number = part.partition(".")
        if number:
            model.stages[int(number)] = in_mode(model.stages[int(number)], training=False)
        else:
            setattr(model, name, in_mode(getattr(model, name), training=False))


def trained(params: dict[Any, Any], frozen: Sequence[str]) -> dict[Any, Any]:
    """The parameters that are not in a frozen part."""
    if not frozen:
        return params
    stages = {n: stage for n, stage in params.get("stages", {}).items() if f"stages.{n}" not in frozen}
    others = {name: part for name, part in params.items() if name not in (*frozen, "stages")}
    return others | ({"stages": stages} if stages else {})


def whole(part: dict[Any, Any], params: dict[Any, Any]) -> dict[Any, Any]:
    """`params` with those of `part`, which `trained` has picked, in place of its own."""
    stages = {"stages": {**params["stages"], **part.get("stages", {})}} if "stages" in params else {}
    return {**params, **part, **stages}
