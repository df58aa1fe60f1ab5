"""Options that several commands share: of the architecture, of the data, and of the computation."""

import argparse
import ast
from pathlib import Path
from typing import Any

from flaxnets import registry
from flaxnets.config import Data, Run
from flaxnets.errors import ConfigError

# What a network decides itself.
NOT_OF_DATA = ("batch_size", "image_size", "test_image_size", "channels", "workers")


def add_options(parser: argparse._ActionsContainer) -> None:
    """Let a command take `--options NAME VALUE ...`, as `flaxnets train` does."""
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="NAME VALUE", help="options of the architecture, such as width 0.5"
    )


def read_options(words: list[str], arch: str) -> dict[str, Any]:
    """Names and values, which are numbers, true, false or words, of the options of an architecture.

    Raises:
      ConfigError: a value is missing.
      ArchitectureError: there is no such architecture, or it takes no such option.
    """
    if len(words) % 2:
        raise ConfigError(f"--options has no value for {words[-1]!r}; give NAME VALUE, such as width 0.5.")
    options = {name: _value(word) for name, word in zip(words[::2], words[1::2], strict=True)}
    registry.check_options(arch, options)  # here, because functions that take them have parameters of their own
    return options


def add_data(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--data.name` and the like, as `flaxnets train` does; what is not given is None."""
    group = parser.add_argument_group("data", "as of `flaxnets train`; default: the test data of the first run")
    for name, field in Data.model_fields.items():
        if name not in NOT_OF_DATA:
            described = (field.description or "").replace("%", "%%")
            group.add_argument(f"--data.{name.replace('_', '-')}", dest=f"data.{name}", metavar="VALUE", help=described)


def read_data(arguments: argparse.Namespace, default: Data | None) -> Data | None:
    """The data of the options of `add_data`, which override `default`; without a name it is `default`'s, or None."""
    values = {name: getattr(arguments, f"data.{name}") for name in Data.model_fields if name not in NOT_OF_DATA}
    given = {name: value for name, value in values.items() if value is not None}
    if "name" not in given:
        return Data(**{**default.model_dump(), **given}) if default else None
    return Data(**given)


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Let a command take the options of a network's computation."""
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time, over all devices; default: 16")
    folder = Run.model_fields["compilation_cache"].default
    parser.add_argument(
        "--compilation-cache", type=Path, default=folder, help=f"where compiled programs are kept; default: {folder}"
    )


def check_inference(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for impossible values of the options of `add_inference`."""
    check_counts(arguments, "batch_size")


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError for options of these names that are given, and below 1."""
    for name in names:
        given = getattr(arguments, name)
        if given is not None and given < 1:
            raise ConfigError(f"--{name.replace('_', '-')} cannot be {given}; give a whole number above 0.")


def _value(word: str) -> Any:
    if word.lower() in ("true", "false"):  # in any case: the word "false" would count as true
        return word.lower() == "true"
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
