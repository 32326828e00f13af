"""What is counted from the networks' specs, with no run at all."""

from collections.abc import Callable, Mapping
from typing import Any

from harness.nn.costs import LayerCost, layer_costs, total_macs, weight_memory_bits
from harness.report.energy import EnergyModel, accesses, weight_accesses
from harness.report.evidence import Evidence
from harness.report.frames import Frames
from harness.report.inspected import PIXEL_INPUTS
from harness.report.paper import load_facts
from harness.spec import MODES, load_recipe

Costs = tuple[LayerCost, ...]


def recipe_costs(recipe: str, dataset: str, mode: str) -> Costs:
    """Return the layer costs of a recipe's full network in a mode."""
    found = load_recipe(recipe, dataset)
    real_input = found.preprocess not in PIXEL_INPUTS
    return layer_costs(found.network, MODES[mode], dataset, real_input)


def _energy() -> EnergyModel:
    return EnergyModel.of(load_facts()["energy_pj"])


def _weights(real: Costs, binary: Costs) -> tuple[float, str]:
    return float(sum(cost.weights for cost in binary)), ""


def _weight_memory(real: Costs, binary: Costs) -> tuple[float, str]:
    sizes = [weight_memory_bits(costs) / 8e6 for costs in (real, binary)]
    return sizes[0] / sizes[1], f"{sizes[0]:.2f} MB against {sizes[1]:.2f} MB"


def _access_ratio(real: Costs, binary: Costs) -> tuple[float, str]:
    counts = [accesses(costs) for costs in (real, binary)]
    return counts[0] / counts[1], f"{counts[0]:,.0f} against {counts[1]:,.0f} accesses of 64 bits"


def _bit_share(real: Costs, binary: Costs) -> tuple[float, str]:
    share = 100 * total_macs(binary, "xnor") / total_macs(binary)
    return share, f"{total_macs(binary):,} multiply-accumulates an image"


def _arithmetic(real: Costs, binary: Costs) -> tuple[float, str]:
    first, second = (_energy().arithmetic_pj(costs) / 1e6 for costs in (real, binary))
    return first / second, f"{first:,.1f} µJ against {second:,.1f} µJ an image"


def _access_over_arithmetic(real: Costs, binary: Costs) -> tuple[float, str]:
    energy = _energy()
    dram = next(level for level in energy.levels if level.size == float("inf"))
    fetched = weight_accesses(real) * dram.pj / 1e6
    computed = energy.arithmetic_pj(real) / 1e6
    return fetched / computed, f"{fetched:,.0f} µJ against {computed:,.0f} µJ an image"


def _where_it_fits(real: Costs, binary: Costs) -> tuple[float, str]:
    energy = _energy()
    levels = [energy.smallest(costs) for costs in (real, binary)]
    first, second = (
        accesses(costs) * level.pj / 1e6
        for costs, level in zip((real, binary), levels, strict=True)
    )
    names = " against ".join(level.name for level in levels)
    return first / second, f"{names}: {first:,.0f} µJ against {second:,.2f} µJ an image"


# A quantity in words, and from the costs of the float and the binary network to value and note.
QUANTITIES: dict[str, tuple[str, Callable[[Costs, Costs], tuple[float, str]]]] = {
    "binary-weights": ("number of binary weights", _weights),
    "weight-memory-ratio": ("bits of weights, thresholds and scales, float over binary",
                            _weight_memory),
    "access-ratio": ("64-bit accesses of an image, each weight and activation once, float over "
                     "binary", _access_ratio),
    "bit-share": ("share of multiply-accumulates of ±1 with ±1", _bit_share),
    "arithmetic-energy-ratio": ("Horowitz's energy of the arithmetic, float over binary",
                                _arithmetic),
    "access-over-arithmetic": ("Horowitz's energy of reading the float weights from DRAM over that "
                               "of the arithmetic", _access_over_arithmetic),
    "energy-where-it-fits": ("Horowitz's energy of all accesses, each network in the smallest "
                             "level that holds its weights, float over binary", _where_it_fits),
}  # fmt: skip


def counted_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return a quantity of the recipe's full network; the frames play no part."""
    real, binary = (
        recipe_costs(measure["recipe"], measure["dataset"], mode) for mode in ("float", "bnn-det")
    )
    value, note = QUANTITIES[measure["quantity"]][1](real, binary)
    return [Evidence(value, 1, note=note)]
