"""What groups of settings have in common: they are frozen, explain mistakes, and write a duration with its unit."""

import re
from typing import Annotated, Any, ClassVar

import pydantic

from flaxnets.errors import ConfigError, did_you_mean

TYPES = {"int", "float", "bool", "str"}
LONGEST = 1e15  # duration, in any unit
MOST_STEPS = 2**31 - 1  # that a state can count


class Part(pydantic.BaseModel):
    """A frozen group of settings; anything wrong in it raises ConfigError, in one sentence that names the setting."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    section: ClassVar[str] = ""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _explain(cls, values: Any, handler: pydantic.ModelWrapValidatorHandler) -> Any:
        try:
            return handler(values)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
        # A number is a place within the value; a type is one of several that it could have.
        place = [step for step in problem["loc"] if isinstance(step, str) and step not in TYPES]
        key = ".".join([*([cls.section] if cls.section else []), *place])
        if problem["type"] == "extra_forbidden":
            from flaxnets.config import option_names  # all parts, this one among them

            near = did_you_mean(key, option_names())
            raise ConfigError(f"There is no setting {key!r}.{near} `flaxnets train --help` lists all.")
        wanted = problem["msg"][0].lower() + problem["msg"][1:]
        raise ConfigError(f"{key} cannot be {problem['input']!r}: {wanted}; change --{key.replace('_', '-')}.")


def _with_unit(duration: str) -> str:
    found = re.fullmatch(r"\s*(\d[\d_]*\.?\d*(?:e[+-]?\d+)?)\s*(step|epoch|image)s?\s*", duration)
    if not found:
        raise ValueError("give a number and its unit, such as `5 epochs`, `500 steps` or `1_000_000 images`")
    number = float(found[1])
    if number > LONGEST:
        raise ValueError(f"give at most {LONGEST:.0e}")
    return f"{int(number) if number.is_integer() else number} {found[2]}{'' if number == 1 else 's'}"


Duration = Annotated[str, pydantic.AfterValidator(_with_unit)]
"""A number of epochs, steps or images, of at least 0, such as `2.5 epochs`."""


def _not_nothing(duration: str) -> str:
    if duration.split()[0] == "0":
        raise ValueError("give more than 0")
    return duration


Interval = Annotated[Duration, pydantic.AfterValidator(_not_nothing)]
"""A duration above 0; in_steps may still round it to 0."""


def in_steps(duration: str, steps_per_epoch: float, batch_size: int) -> int:
    """The whole number of steps nearest to a duration, or the most that can be counted.

    >>> in_steps("2.5 epochs", steps_per_epoch=10.0, batch_size=64)
    25
    >>> in_steps("1280 images", steps_per_epoch=10.0, batch_size=64)
    20
    """
    number, unit = duration.split()
    steps = {"step": 1.0, "epoch": steps_per_epoch, "image": 1 / batch_size}[unit.removesuffix("s")]
    return round(min(float(number) * steps, MOST_STEPS))
