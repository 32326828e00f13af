"""Operations and bits of a network, counted layer by layer from its spec (paper, section 3)."""

import math
from dataclasses import dataclass
from typing import Literal

from harness.data.names import CLASSES, IMAGE_SHAPES
from harness.spec import Mode, NetworkSpec

REAL_BITS, PIXEL_BITS = 32, 8
Operation = Literal["float", "add", "planes", "xnor", "ternary"]


@dataclass(frozen=True)
class LayerCost:
    """What one layer does and touches for one image in a forward pass at test time.

    ``operation`` is how one of its ``macs`` (multiply-accumulates) is done: ``float``, a float
    multiply-add; ``add``, a float add of ±x, for binary weights alone; ``planes``, a ±1 weight
    with the eight bit planes of a pixel; ``xnor``, ±1 with ±1; ``ternary``, a weight of -1, 0 or
    +1 (two bits) with ±1. ``weight_bits`` and
    ``input_bits`` are those of one weight and of one input value; ``head_bits`` those of what
    follows the product at one output unit: a 32-bit threshold, or scale and offset.
    """

    kind: Literal["conv", "linear"]
    fan_in: int
    outputs: int
    positions: int
    inputs: int
    operation: Operation
    weight_bits: int
    input_bits: int
    head_bits: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.fan_in * self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates; those with zero padding are counted, as kernels do them."""
        return self.weights * self.positions

    @property
    def weight_memory_bits(self) -> int:
        """Bits of the weights and of what follows the product."""
        return self.weights * self.weight_bits + self.outputs * self.head_bits

    @property
    def input_memory_bits(self) -> int:
        """Bits of the layer's input values."""
        return self.inputs * self.input_bits


@dataclass(frozen=True)
class _Shape:
    kind: Literal["conv", "linear"]
    fan_in: int
    outputs: int
    positions: int
    inputs: int


def layer_costs(
    network: NetworkSpec,
    mode: Mode,
    dataset: str,
    real_input: bool = False,
    ternary: bool = False,
) -> tuple[LayerCost, ...]:
    """Return the cost of each layer for one image of ``dataset``.

    ``real_input`` says that the preprocessing gives real values, as whitening does, rather than
    8-bit pixels; a float network takes 32-bit values in any case. ``ternary``: the mode's binary
    weights may also be 0, as the bitwise and the ternary method leave them.
    """
    shapes = _mlp(network, dataset) if network.kind == "mlp" else _convnet(network, dataset)
    last = len(shapes) - 1
    return tuple(
        _layer(shape, network, mode, i == 0, i == last, real_input, ternary)
        for i, shape in enumerate(shapes)
    )


def _layer(
    shape: _Shape,
    network: NetworkSpec,
    mode: Mode,
    first: bool,
    last: bool,
    real_input: bool,
    ternary: bool,
) -> LayerCost:
    treatment = network.first_layer if first else network.last_layer if last else "mode"
    binary = mode.test_weights != "real" and treatment == "mode"
    bits = 1 if mode.activations != "real" else REAL_BITS
    if first:
        bits = REAL_BITS if real_input or mode.activations == "real" else PIXEL_BITS
    ways: dict[int, Operation] = {1: "xnor", PIXEL_BITS: "planes", REAL_BITS: "add"}
    if ternary:
        ways |= {1: "ternary", PIXEL_BITS: "add"}
    operation: Operation = ways[bits] if binary else "float"
    folds = operation in ("xnor", "planes") and not last
    return LayerCost(
        kind=shape.kind,
        fan_in=shape.fan_in,
        outputs=shape.outputs,
        positions=shape.positions,
        inputs=shape.inputs,
        operation=operation,
        weight_bits=1 + ternary if binary else REAL_BITS,
        input_bits=bits,
        head_bits=REAL_BITS if folds else 2 * REAL_BITS,
    )


def _mlp(network: NetworkSpec, dataset: str) -> list[_Shape]:
    widths = [math.prod(IMAGE_SHAPES[dataset]), *network.hidden, CLASSES]
    return [_Shape("linear", k, n, 1, k) for k, n in zip(widths, widths[1:], strict=False)]


def _convnet(network: NetworkSpec, dataset: str) -> list[_Shape]:
    channels, side, _ = IMAGE_SHAPES[dataset]
    w, shapes = network.width, []
    for i, maps in enumerate((w, w, 2 * w, 2 * w, 4 * w, 4 * w)):
        area = side * side
        shapes.append(_Shape("conv", 9 * channels, maps, area, channels * area))
        channels, side = maps, side // (1 + i % 2)
    widths = [channels * side * side, network.fc, network.fc, CLASSES]
    return shapes + [_Shape("linear", k, n, 1, k) for k, n in zip(widths, widths[1:], strict=False)]


def total_macs(costs: tuple[LayerCost, ...], *operations: Operation) -> int:
    """Return the multiply-accumulates of an image; with ``operations`` only those done so."""
    return sum(c.macs for c in costs if not operations or c.operation in operations)


def word_operations(costs: tuple[LayerCost, ...]) -> float:
    """Return the 32-bit operations of an image.

    A float multiply-accumulate is two, one with a ±1 or zero weight an add; an XNOR-popcount step
    of six operations does 32 multiply-accumulates (paper, section 4), a pixel's eight planes take
    eight steps, a ternary weight two.
    """
    step = 6 / 32
    each = {"float": 2.0, "add": 1.0, "planes": PIXEL_BITS * step, "xnor": step,
            "ternary": 2 * step}  # fmt: skip
    return sum(cost.macs * each[cost.operation] for cost in costs)


def weight_memory_bits(costs: tuple[LayerCost, ...]) -> int:
    """Return the bits that the network's weights, thresholds and scales take."""
    return sum(cost.weight_memory_bits for cost in costs)
