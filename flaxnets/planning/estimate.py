"""How long a step would take: a roofline of operations, memory traffic and links (Williams et al. 2009)."""

import dataclasses

from flaxnets.planning.chips import Chip
from flaxnets.planning.costs import Costs


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step, from a chip's published peaks; reading and decoding images and evaluations not counted.

    Attributes:
      operations: at the peak of the matrix units.
      memory: at the peak of HBM.
      links: of the collectives, which wait for the whole gradient, so that nothing is computed meanwhile.
    """

    operations: float
    memory: float
    links: float

    @property
    def step(self) -> float:
        """Computing and memory traffic overlap; the links come after."""
        return max(self.operations, self.memory) + self.links

    @property
    def limit(self) -> str:
        """What takes longest: `operations`, `memory` or `links`."""
        times = dataclasses.asdict(self)
        return max(times, key=lambda name: times[name])


def estimate(costs: Costs, chip: Chip, chips: int) -> Estimate:
    """The roofline of a step on so many chips of a kind.

    An all-reduce over n chips sends each byte 2 (n - 1) / n times over a chip's links (Patarasuk and Yuan 2009); two
    devices of one chip add up theirs before.
    """
    devices_a_chip = costs.devices / chips
    moved = sum(each.bytes for each in costs.collectives.values())
    return Estimate(
        operations=costs.operations * devices_a_chip / chip.operations,
        memory=costs.bytes_accessed * devices_a_chip / chip.bandwidth,
        links=2 * (chips - 1) / chips * moved / chip.links,
    )
