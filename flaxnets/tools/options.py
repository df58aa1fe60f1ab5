"""`--options` of commands that make a model: what its architecture takes besides, such as `width 0.5`."""

import argparse
import ast
from typing import Any

from flaxnets.errors import ConfigError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--options NAME VALUE ...`, as `flaxnets train` does."""
    parser.add_argument(
        "--options", nargs="*", default=[], metavar="NAME VALUE", help="options of the architecture, such as width 0.5"
    )


def read_options(words: list[str]) -> dict[str, Any]:
    """Names and values, which are numbers, True, False or words. Raises ConfigError where a value is missing."""
    if len(words) % 2:
        raise ConfigError(f"--options has no value for {words[-1]!r}; give NAME VALUE, such as width 0.5.")
    return {name: _value(word) for name, word in zip(words[::2], words[1::2], strict=True)}


def _value(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
