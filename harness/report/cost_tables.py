"""Tables that are counted: operations and bits, energy, memory accesses, and filters alike."""

from typing import Any

from harness.nn.costs import LayerCost, total_macs, weight_memory_bits, word_operations
from harness.report.counted import recipe_costs
from harness.report.energy import (
    EnergyModel,
    accesses,
    activation_accesses,
    weight_accesses,
)
from harness.report.evidence import scale_text, select
from harness.report.filters import convolutions
from harness.report.frames import Frames
from harness.report.paper import Paper
from harness.report.table import Table
from harness.report.tables import number

Costs = tuple[LayerCost, ...]
# The paper's four networks: recipe, dataset, name.
NETWORKS = (
    ("theano", "mnist", "MNIST, MLP 3 × 4096"),
    ("torch7", "mnist", "MNIST, MLP 3 × 2048"),
    ("theano", "cifar10", "CIFAR-10, ConvNet(128)"),
    ("theano", "svhn", "SVHN, ConvNet(64)"),
)
FORMS = (("float", "float"), ("bc-det", "binary weights"), ("bnn-det", "BNN"))


def _forms() -> list[tuple[str, str, Costs]]:
    return [
        (name, form, recipe_costs(recipe, dataset, mode))
        for recipe, dataset, name in NETWORKS
        for mode, form in FORMS
    ]


def costs_table() -> Table:
    """Return the operations and bits of one image in the paper's networks, in three forms."""
    data: list[dict[str, Any]] = [
        {
            "network": name,
            "form": form,
            "macs": total_macs(costs),
            "xnor_macs": total_macs(costs, "xnor"),
            "operations": round(word_operations(costs)),
            "weight_mb": weight_memory_bits(costs) / 8e6,
            "weight_accesses": weight_accesses(costs),
            "activation_accesses": activation_accesses(costs),
        }
        for name, form, costs in _forms()
    ]
    rows: list[tuple[str, ...]] = []
    for row in data:
        if row["form"] == "float":
            rows.append((str(row["network"]),))
        rows.append(
            (
                str(row["form"]),
                f"{row['macs'] / 1e6:,.1f}",
                f"{100 * row['xnor_macs'] / row['macs']:.1f}",
                f"{row['operations'] / 1e6:,.1f}",
                f"{row['weight_mb']:,.2f}",
                f"{row['weight_accesses'] / 1e3:,.0f}",
                f"{row['activation_accesses'] / 1e3:,.1f}",
            )
        )
    return Table(
        name="costs",
        title="Operations, bits and accesses of one image",
        header=("Form", "MACs, million", "XNOR, %", "32-bit operations, million", "Weights, MB",
                "Weight accesses, thousand", "Activation accesses, thousand"),
        rows=rows,
        data=data,
        caption="Counted layer by layer from the recipes' full networks, forward pass, batch of "
        "one. An access moves 64 bits; every weight is read once, every activation written once "
        "and read once. The paper: 32 times less memory, 32 times fewer accesses.",
        notes=(
            "A float multiply-accumulate (MAC) counts two operations, one with a ±1 weight one; "
            "six operations do 32 XNOR MACs, a pixel takes eight bit planes.",
            "Weights include thresholds, or scales and offsets; MACs include zero padding.",
        ),
        numeric=frozenset(range(1, 7)),
    )  # fmt: skip


def energy_table(paper: Paper) -> Table:
    """Return the energy of one image: arithmetic, and all accesses at each level of memory."""
    model = EnergyModel.of(paper.facts["energy_pj"])
    data: list[dict[str, Any]] = []
    for name, form, costs in _forms():
        fits = model.smallest(costs)
        data.append(
            {
                "network": name,
                "form": form,
                "arithmetic_uj": model.arithmetic_pj(costs) / 1e6,
                **{lv.name: accesses(costs) * lv.pj / 1e6 for lv in model.levels},
                "fits": fits.name,
                "there_uj": (accesses(costs) * fits.pj + model.arithmetic_pj(costs)) / 1e6,
            }
        )
    levels = [level.name for level in model.levels]
    rows: list[tuple[str, ...]] = []
    for row in data:
        if row["form"] == "float":
            rows.append((row["network"],))
            base = row["there_uj"]
        cells = [number(row[key]) for key in ("arithmetic_uj", *levels)]
        gain = f"{number(base / row['there_uj'])} ×"
        rows.append((row["form"], *cells, row["fits"], number(row["there_uj"]), gain))
    return Table(
        name="energy",
        title="Energy of one image, µJ, by Horowitz's numbers",
        header=("Form", "Arithmetic", *levels, "Weights fit", "Sum there", "Less by"),
        rows=rows,
        data=data,
        caption="Arithmetic, and all accesses if they went to one level of memory; then the sum "
        "with each network in the smallest level that holds its weights.",
        notes=_energy_notes(model),
        numeric=frozenset({*range(1, 2 + len(levels)), 3 + len(levels), 4 + len(levels)}),
    )


def _energy_notes(model: EnergyModel) -> tuple[str, ...]:
    xnor = model.mac["xnor"]
    real, binary = (recipe_costs("theano", "cifar10", mode) for mode in ("float", "bnn-det"))
    ratio = model.arithmetic_pj(real) / model.arithmetic_pj(binary)
    dearer = {**model.mac, "xnor": 0.03, "planes": 0.24}
    low = model.arithmetic_pj(real) / EnergyModel(dearer, model.levels).arithmetic_pj(binary)
    return (
        f"Horowitz gives no xor and no popcount: each of a step's six operations counts as one "
        f"32-bit integer add, {xnor:.4f} pJ a MAC. Were each XNOR MAC an 8-bit integer add of "
        f"0.03 pJ, the ConvNet's arithmetic would cost {low:.0f} times less than float's in place "
        f"of {ratio:.0f}.",
        "The level decides more than the arithmetic: from the 8 KB cache to DRAM an access costs "
        "130 to 260 times as much, and the range of DRAM alone is a factor of two. At one level "
        "the ratio of float to BNN is that of the accesses, close to 32; it is larger where only "
        "the binary network fits a cache.",
        "Every weight is read once an image: a larger batch shares the weights' accesses, and "
        "caches that thrash repeat them. Leakage, control and instruction fetch are left out.",
    )


def filters_table(frames: Frames) -> Table:
    """Return the filters that differ, layer by layer, of every inspected binary ConvNet."""
    rows_of = convolutions(frames.unlabelled(), {})
    data: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    keys = ["dataset", "source", "recipe", "mode", "changes"]
    for key, layers in rows_of.groupby(keys, sort=True):
        run = select(frames.runs, dict(zip(keys, key, strict=True)))
        scale = scale_text(run.iloc[0]) if len(run) else ""
        label = f"{key[0]}, {key[2]} / {key[3]}, {scale}"
        rows.append((label + (" [stand-in]" if key[1] == "standin" else ""),))
        for layer, group in [*layers.groupby("layer"), ("mean", layers)]:
            mean = group[[c for c in group if str(c).startswith("share_")]].mean()
            total = "" if layer == "mean" else f"{int(group['filters'].iloc[0]):,}"
            cells = [f"{mean[f'share_{name}']:.1f}" for name in _COUNTED]
            name = layer if layer == "mean" else f"{int(layer)}"
            rows.append((f"{name}", total, *cells))
            data.append(dict(zip(keys, key, strict=True)) | {"layer": layer, **mean.to_dict()})
    return Table(
        name="filters",
        title="3x3 filters that differ, % of a layer's filters",
        header=("Convolution", "Filters", "At an input map", "± as one", "In the whole layer",
                "± as one"),
        rows=rows,
        data=data,
        caption="The paper: 42 % unique, in a layer on average; which count it means is not "
        "certain. In the whole layer at most 512 can differ, which at its sizes leaves 18 % on "
        "average, so the filters at one input map are held against it, a filter and its inverse "
        "as one.",
        numeric=frozenset(range(1, 6)),
    )  # fmt: skip


_COUNTED = ("per_input", "per_input_up_to_sign", "distinct", "distinct_up_to_sign")
