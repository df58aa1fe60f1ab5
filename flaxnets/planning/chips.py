"""What TPU chips can do at best, as their maker publishes it; data, without code."""

from typing import NamedTuple


class Chip(NamedTuple):
    """One chip.

    Attributes:
      operations: a second in bfloat16, a multiply-add counted as two. Convolutions of float32 images run at this rate
        too: XLA computes them in one pass of bfloat16 unless it is told otherwise.
      memory: HBM in bytes, as sold; the compiler keeps a few per cent of it.
      bandwidth: bytes a second between HBM and chip.
      links: bytes a second that leave the chip over all its links to other chips, which is its part of the all-reduce
        bandwidth that is published for a pod.
      shapes: of slices that can be rented, smallest first, for messages.
    """

    operations: float
    memory: int
    bandwidth: float
    links: float
    shapes: tuple[str, ...]


GIB = 2**30
TWO_DIMENSIONS = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
THREE_DIMENSIONS = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# Google Cloud's documentation, pages "TPU v3", "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)", sections "System
# architecture", read in November 2026. All-reduce bandwidths of a pod: v3 340 TB/s over 1,024 chips, v5e 51.2 TB/s and
# v6e 102.4 TB/s over 256; links of v5p 4,800 Gbit/s, of TPU7x half of 1,200 GB/s, which counts both directions.
# fmt: off
CHIPS = {
    #              operations  memory     bandwidth  links
    "v3":     Chip(123e12,      32 * GIB,  900e9,    340e12 / 1024,  TWO_DIMENSIONS[1:]),
    "v5e":    Chip(197e12,      16 * GIB,  819e9,    51.2e12 / 256,  TWO_DIMENSIONS),
    "v5p":    Chip(459e12,      95 * GIB, 2765e9,    4800e9 / 8,     THREE_DIMENSIONS),
    "v6e":    Chip(918e12,      32 * GIB, 1638e9,    102.4e12 / 256, TWO_DIMENSIONS),
    "tpu7x":  Chip(2307e12,    192 * GIB, 7380e9,    1200e9 / 2,     THREE_DIMENSIONS),
}
# fmt: on
