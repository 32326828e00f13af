"""Time the convolutions of a ConvNet's training step on a GPU by tile, beside the library's.

    export PYTHONPATH=.
    python tests/train/gpu_tiles.py                       # layers 2 to 6 of ConvNet(128), batch 50
    python tests/train/gpu_tiles.py --width 64 --tiles "64x64x64x4x3 128x64x64x8x3"

Prints rows of CSV: kernel, product, layer, tile and the least of five medians in us. A sample is a
graph of twenty launches, so the host's time is not in it. Dots are compared before they are timed.
A tile is M x N x K x warps x stages; of one that does not fit the error's name is printed.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness.nn.conv_block import by_input
from kernels.triton import binary_maps, conv, dot, maps
from kernels.triton.device import DEVICE
from kernels.triton.pack import pack_rows

LAUNCHES, SAMPLES = 20, 5
HALF_TILES = "128x128x64x8x3 64x128x64x4x4 128x64x64x4x4 128x128x128x8x2 64x128x128x4x3"
BIT_TILES = "128x64x64x4x4 128x128x64x8x4 64x64x64x4x4 128x64x128x4x3 128x128x128x8x3"
FILTER_TILES = "64x64x64x4x3 128x64x64x8x3 64x64x64x4x4 128x64x32x8x4"


def layers(width: int) -> Iterator[tuple[str, int, int, int, bool]]:
    """Yield name, side, channels in and out, and whether it is pooled, of the hidden layers."""
    w = width
    sizes = [(32, w, w), (16, w, 2 * w), (16, 2 * w, 2 * w), (8, 2 * w, 4 * w), (8, 4 * w, 4 * w)]
    for index, (side, channels, n) in enumerate(sizes, start=2):
        yield f"{index}", side, channels, n, index % 2 == 0


def microseconds(call: Callable[[], Any]) -> float:
    """Return the device's time of a call."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            call()
    medians = []
    for _ in range(SAMPLES):
        times = []
        for _ in range(SAMPLES):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            graph.replay()
            last.record()
            torch.cuda.synchronize()
            times.append(1000 * first.elapsed_time(last) / LAUNCHES)
        medians.append(statistics.median(times))
    return min(medians)


def signs(*shape: int) -> Tensor:
    """Return random ±1 in float16 on the GPU."""
    return torch.randint(0, 2, shape, device=DEVICE).mul(2).sub(1).half()


def tiles_of(text: str) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of each tile."""
    for tile in text.split():
        yield tuple(int(number) for number in tile.split("x"))


def same(found: Any, expected: Any) -> bool:
    """Return whether results that may be absent are equal."""
    pairs = zip(found, expected, strict=True)
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


class Sweep:
    """Times one layer's products; ``write`` takes a row."""

    def __init__(self, layer: tuple[str, int, int, int, bool], batch: int, write: Any) -> None:
        self.layer, self.write = layer, write
        _, side, channels, n, self.pool = layer
        self.x, self.filters = signs(batch, side, side, channels), signs(n, 3, 3, channels)
        self.gradient = torch.randn(batch, side, side, n, device=DEVICE).half()

    def row(self, kernel: str, product: str, tile: tuple[int, ...], call: Any) -> None:
        """Time a call and write its row."""
        name = "x".join(map(str, tile))
        try:
            found = f"{microseconds(call):.1f}"
        except Exception as error:  # a compiler's, for a tile that does not fit
            found = type(error).__name__
        self.write([kernel, product, self.layer[0], name, found])

    def forward(self, half_tiles: str, bit_tiles: str) -> None:
        """Time the dots by float16 and by single bits."""
        expected = maps.convolve(self.x, self.filters, self.pool)
        choose, kept = maps.choose_tile, conv.TILE
        for tile in tiles_of(half_tiles):
            maps.choose_tile = lambda *_, tile=tile: maps.Tile(*tile)  # type: ignore[assignment]
            self.row("maps", "forward", tile, self._checked(self._by_half, expected))
        maps.choose_tile = choose
        if not binary_maps.runs(self.x.shape[3]):
            return
        rows = pack_rows(self.x.flatten(0, 2)).words.view(torch.int32)
        self.words = rows.view(*self.x.shape[:3], -1)
        for tile in tiles_of(bit_tiles):
            conv.TILE = dot.Tile(*tile)
            self.packed = binary_maps.empty_filters(len(self.filters), self.x.shape[3])
            binary_maps.pack_filters_(self.filters, self.packed)
            self.row("binary-maps", "forward", tile, self._checked(self._by_bits, expected))
        conv.TILE = kept

    def _by_half(self) -> Any:
        return maps.convolve(self.x, self.filters, self.pool)

    def _by_bits(self) -> Any:
        return binary_maps.convolve(self.words, self.packed, self.pool)

    def _checked(self, call: Callable[[], Any], expected: Any) -> Callable[[], Any]:
        checked: list[bool] = []

        def first() -> Any:
            found = call()
            if not checked:
                torch.cuda.synchronize()
                checked.append(same(found, expected))
                if not checked[0]:
                    raise ValueError("another result")
            return found

        return first

    def backward(self, filter_tiles: str) -> None:
        """Time both gradients, the library's by the map."""
        self.row("cudnn", "by input", (), lambda: by_input(self.gradient, self.x, self.filters))
        kept = maps.FILTER_TILE
        for tile in tiles_of(filter_tiles):
            maps.FILTER_TILE = maps.Tile(*tile)
            self.row("maps", "by filters", tile, lambda: maps.by_filters(self.gradient, self.x))
        maps.FILTER_TILE = kept


def main() -> None:
    """Print a row for each product and tile."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--width", type=int, default=128)
    arguments.add_argument("--batch", type=int, default=50)
    arguments.add_argument("--tiles", default=HALF_TILES, help="of float16's dots")
    arguments.add_argument("--bit-tiles", default=BIT_TILES, help="of single bits' dots")
    arguments.add_argument("--filter-tiles", default=FILTER_TILES)
    args = arguments.parse_args()
    if not torch.cuda.is_available():
        arguments.error("torch finds no CUDA device")
    torch.backends.cudnn.benchmark = True
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    write(["kernel", "product", "layer", "tile", "us"])
    for layer in layers(args.width):
        sweep = Sweep(layer, args.batch, write)
        sweep.forward(args.tiles, args.bit_tiles)
        sweep.backward(args.filter_tiles)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
