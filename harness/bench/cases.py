"""The cases of a bench: what is multiplied, and how often. Data, made from their names."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import HarnessError

LARGEST = 16384
PIXELS, CLASSES, TEST_IMAGES = 28 * 28, 10, 10_000  # MNIST's test set in one batch, as the paper's


@dataclass(frozen=True)
class Case:
    """Products of one batch of ``m`` rows.

    Attributes:
        name: as in commands and file names.
        group: "square" or "layer" (one product), "conv" (a 3x3 convolution), "mlp" (a whole
            network), "ceiling" (what the machine can do at most).
        m: rows of the activations, or images.
        shapes: (N, K) of each product in turn.
        side: height and width of the images' maps, for a convolution.
    """

    name: str
    group: str
    m: int
    shapes: tuple[tuple[int, int], ...]
    side: int = 0

    @property
    def n(self) -> int:
        """N of the product, or of a hidden layer of the network."""
        return self._typical[0]

    @property
    def k(self) -> int:
        """K of the product, or of a hidden layer of the network."""
        return self._typical[1]

    @property
    def _typical(self) -> tuple[int, int]:
        return self.shapes[len(self.shapes) // 2]

    @property
    def ops(self) -> int:
        """Multiplications and additions, 2·M·N·K a product."""
        rows = self.m * self.side**2 if self.side else self.m
        return 2 * rows * sum(n * k for n, k in self.shapes)

    @property
    def includes(self) -> tuple[str, ...]:
        """What is clocked, one benchmark each."""
        if self.group == "ceiling":
            return ("ceiling",)
        if self.group == "conv":
            return ("conv", "conv+bits")
        return ("network",) if self.group == "mlp" else ("gemm", "pack+gemm", "gemm+bits")


def _square(name: str, size: int) -> Case:
    return Case(name, "square", size, ((size, size),))


def _layer(name: str, m: int, n: int, k: int) -> Case:
    return Case(name, "layer", m, ((n, k),))


def _mnist_mlp(name: str, width: int, images: int = TEST_IMAGES) -> Case:
    shapes = ((width, PIXELS), (width, width), (width, width), (CLASSES, width))
    return Case(name, "mlp", images, shapes)


def _conv(name: str, images: int, side: int, channels: int, filters: int) -> Case:
    if side < 2:
        raise HarnessError(f"case {name!r}: a map is pooled 2 x 2, so its side must be 2 or more")
    return Case(name, "conv", images, ((filters, 9 * channels),), side)


def _ceilings(name: str) -> Case:
    return Case(name, "ceiling", 1, ((1, 1),))


_PATTERNS: dict[str, tuple[str, Callable[..., Case]]] = {
    "square-<size>": (r"square-(\d+)", _square),
    "layer-<m>x<n>x<k>": (r"layer-(\d+)x(\d+)x(\d+)", _layer),
    "mnist-mlp-<hidden units>": (r"mnist-mlp-(\d+)", _mnist_mlp),
    "mnist-mlp-<hidden units>x<images>": (r"mnist-mlp-(\d+)x(\d+)", _mnist_mlp),
    "conv-<images>x<side>x<channels>x<filters>": (r"conv-(\d+)x(\d+)x(\d+)x(\d+)", _conv),
    "ceilings": (r"ceilings", _ceilings),
}


def get_case(name: str) -> Case:
    """Return the case called ``name``, such as ``square-2048`` or ``mnist-mlp-4096``.

    Raises:
        HarnessError: no such pattern, a size that is not within 1..16384, or a map of one pixel.
    """
    for pattern, make in _PATTERNS.values():
        found = re.fullmatch(pattern, name)
        if found is None:
            continue
        sizes = [int(size) for size in found.groups()]
        if not all(1 <= size <= LARGEST for size in sizes):
            raise HarnessError(f"case {name!r}: a size must be within 1..{LARGEST}")
        return make(name, *sizes)
    raise HarnessError(
        f"unknown case {name!r}; allowed: {', '.join(_PATTERNS)}, "
        "for example square-2048, layer-100x1024x784, conv-50x32x128x128, mnist-mlp-1024"
    )
