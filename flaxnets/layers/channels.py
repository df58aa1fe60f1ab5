"""Widths of networks: how many channels a multiplied layer gets."""

from flaxnets.errors import ArchitectureError


def round_channels(channels: float, multiple: int = 8) -> int:
    """Nearest `multiple` that keeps at least 90 % of `channels`.

    Args:
      channels: scaled width in feature maps; may be fractional, must be positive.
      multiple: what hardware likes; also the least result.

    Raises:
      ArchitectureError: `channels` is 0 or less.

    Source: MobileNetV2, arXiv:1801.04381, in the authors' code.

    >>> round_channels(32 * 0.35)
    16
    """
    if not channels > 0:
        raise ArchitectureError(f"A layer cannot have {channels} channels; give a width above 0.")
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels else rounded + multiple
