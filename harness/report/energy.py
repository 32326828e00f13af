"""Energy and accesses of a forward pass: Horowitz's numbers times what our networks do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.names import CLASSES
from harness.nn.costs import PIXEL_BITS, REAL_BITS, LayerCost, weight_memory_bits

ACCESS_BITS = 64


@dataclass(frozen=True)
class Level:
    """A place in the memory: its size in bytes and what a 64-bit access costs, in pJ."""

    name: str
    size: float
    pj: float


@dataclass(frozen=True)
class EnergyModel:
    """Horowitz's energies (2014), and what stands for an XNOR-popcount step.

    He gives no energy for an xor or a popcount: each of the operations of a step counts as one
    32-bit integer add, the nearest that he gives. ``mac`` are pJ a multiply-accumulate.
    """

    mac: dict[str, float]
    levels: tuple[Level, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "EnergyModel":
        """Read the section ``energy_pj`` of paper.yaml."""
        table, step = facts["multiply_add"], facts["xnor_step"]
        xnor = step["operations"] * table["32-bit integer"][1] / step["multiply_accumulates"]
        mac = {
            "float": sum(table["32-bit float"]),
            "add": table["32-bit float"][1],
            "planes": PIXEL_BITS * xnor,
            "xnor": xnor,
            "ternary": 2 * xnor,
        }
        levels = [Level(n, v["bytes"], v["pj"]) for n, v in facts["memory_access_64_bit"].items()]
        return cls(mac, tuple(levels))

    def arithmetic_pj(self, costs: Sequence[LayerCost]) -> float:
        """Return the energy of all multiply-accumulates of an image."""
        return sum(cost.macs * self.mac[cost.operation] for cost in costs)

    def smallest(self, costs: Sequence[LayerCost]) -> Level:
        """Return the first level that holds all weights; the last one holds everything."""
        needed = weight_memory_bits(tuple(costs)) / 8
        return next((x for x in self.levels if needed <= x.size), self.levels[-1])


def accesses(costs: Sequence[LayerCost]) -> float:
    """Return the 64-bit accesses of an image: each weight once, each activation in and out.

    The least that a batch of one can do: nothing is fetched twice. Pooling is part of the layer.
    """
    return weight_accesses(costs) + activation_accesses(costs)


def weight_accesses(costs: Sequence[LayerCost]) -> float:
    """Return the 64-bit accesses that read weights, thresholds and scales once."""
    return math.fsum(cost.weight_memory_bits for cost in costs) / ACCESS_BITS


def activation_accesses(costs: Sequence[LayerCost]) -> float:
    """Return the 64-bit accesses that read each layer's inputs and write its outputs."""
    read = [cost.input_memory_bits for cost in costs]
    return (sum(read) + sum(read[1:]) + CLASSES * REAL_BITS) / ACCESS_BITS
