"""A case as operands, with exact results on sampled rows to hold every kernel against."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.bench.cases import Case
from harness.bench.convolutions import Convolution
from harness.bench.operands import generator_of, random_signs, sampled
from harness.bench.subject import Problem, Subject
from kernels import reference
from kernels.base import Kernel
from kernels.packing import Packed, unpack_by_torch, unpack_rows

PROBES = 10  # rows that packed output is multiplied with to be compared
_REFERENCE_BLOCK = 1024  # weights unpacked to float64 at once
_PIXEL_SPREAD = 147.8  # standard deviation of 2u - 255 for even u


def build(case: Case, device: str = "cpu") -> Problem:
    """Draw a case's operands, the same ones every time and on every machine.

    The reference multiplies on ``device``: in float64, by the library alone, exact on integers.
    """
    if case.group == "conv":
        return Convolution(case)
    return Network(case, device) if case.group == "mlp" else Product(case, device)


def _taken(p: Packed, rows: Tensor | None) -> Packed:
    return p if rows is None else Packed(p.words[rows], p.k, p.segments)


def placed(p: Packed, device: str) -> Packed:
    """Return rows on ``device``, on a GPU a copy of their own: another that stays in its L2."""
    return Packed(p.words.to(device, copy=device != "cpu"), p.k, p.segments)


def _exact(x: Tensor, w: Packed, device: str) -> Tensor:
    """Return the reference's int32 product of integers [M, K] and packed weights [N, K]."""
    x = x.to(device, torch.float64)
    blocks = torch.split(w.words.to(device), _REFERENCE_BLOCK)
    signs = (unpack_by_torch(Packed(block, w.k), torch.int8) for block in blocks)
    return torch.cat([reference.gemm(x, block) for block in signs], dim=1).cpu()


class Product:
    """One product of random ±1 matrices."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        generator = generator_of(case)
        self.case, self.rows = case, sampled(case.m)
        self.activations = random_signs(case.m, case.k, generator)
        self.weights = random_signs(case.n, case.k, generator)
        rows = unpack_rows(_taken(self.activations, self.rows))
        self.expected = _exact(rows, self.weights, device)
        spread = case.k**0.5
        self.threshold = (spread * torch.randn(case.n, generator=generator)).round().int()
        self.flip = torch.randint(0, 2, (case.n,), generator=generator).bool()
        self.probe = random_signs(PROBES, case.n, generator)
        # Copied from there for each kernel, and not from the host.
        self.activations, self.weights = self.activations.to(device), self.weights.to(device)

    @cached_property
    def _expected_bits(self) -> Tensor:
        hidden = reference.threshold(self.expected, self.threshold, self.flip)
        return reference.gemm(hidden, unpack_rows(self.probe))

    def subject(self, kernel: Kernel, includes: str) -> Subject | None:
        """Return the product for one kernel.

        ``gemm`` starts from operands as the kernel takes them, ``pack+gemm`` from float32 ±1
        activations; it is None for a kernel that takes these as they are. ``gemm+bits`` starts as
        ``gemm`` and ends in packed bits, None for a kernel that does not fuse them; their product
        with a few more rows is compared.
        """
        device = kernel.device
        weights = kernel.weights(placed(self.weights, device))
        if includes == "gemm":
            return Subject(
                lambda rows: kernel.activations(placed(_taken(self.activations, rows), device)),
                lambda a: kernel.product(a, weights),
                weights,
            )
        if includes == "gemm+bits":
            return self._to_bits(kernel, weights) if kernel.fused and kernel.packed else None
        if kernel.takes_reals:
            return None
        return Subject(
            lambda rows: unpack_rows(_taken(self.activations, rows).to(device)),
            lambda x: kernel.product(kernel.activations_from_real(x), weights),
            weights,
        )

    def _to_bits(self, kernel: Kernel, weights: Any) -> Subject:
        device = kernel.device
        threshold, flip = self.threshold.to(device), self.flip.to(device)
        probe = kernel.weights(self.probe.to(device))
        return Subject(
            lambda rows: kernel.activations(placed(_taken(self.activations, rows), device)),
            lambda a: kernel.product_bits(a, weights, threshold, flip),
            weights,
            lambda bits: kernel.product(bits, probe),
            self._expected_bits,
        )


class Network:
    """A binary network on 8-bit pixels up to the integer scores of its last layer (Algorithm 5).

    Weights, thresholds and flips are random. The thresholds lie within the spread of the dots, so
    that about half of the hidden bits are set and an error in one layer shows in the scores.
    """

    def __init__(self, case: Case, device: str = "cpu") -> None:
        generator = generator_of(case)
        self.case, self.rows = case, sampled(case.m)
        shape = (case.m, case.shapes[0][1])
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.weights = [random_signs(n, k, generator) for n, k in case.shapes]
        self.thresholds, self.flips = [], []
        for layer, (n, k) in enumerate(case.shapes[:-1]):
            spread = k**0.5 * (_PIXEL_SPREAD if layer == 0 else 1)
            drawn = spread * torch.randn(n, generator=generator)
            self.thresholds.append(drawn.round().to(torch.int32))
            self.flips.append(torch.randint(0, 2, (n,), generator=generator).bool())
        self.expected = self._reference(self.pixels[self.rows], device)
        # Copied from there for each kernel, and not from the host.
        self.pixels = self.pixels.to(device)
        self.weights = [w.to(device) for w in self.weights]

    def _reference(self, pixels: Tensor, device: str) -> Tensor:
        x = 2 * pixels.to(torch.int32) - 255
        for w, threshold, flip in zip(self.weights, self.thresholds, self.flips, strict=False):
            x = reference.threshold(_exact(x, w, device), threshold, flip)
        return _exact(x, self.weights[-1], device)

    def subject(self, kernel: Kernel, includes: str) -> Subject | None:
        """Return the network with every layer on ``kernel``, activations bound inside the clock."""
        device = kernel.device
        first = kernel.bits_on_pixels(placed(self.weights[0], device))
        *hidden, last = [kernel.weights(placed(w, device)) for w in self.weights[1:]]
        thresholds = [threshold.to(device) for threshold in self.thresholds]
        flips = [flip.to(device) for flip in self.flips]

        def run(pixels: Tensor) -> Tensor:
            x = first(pixels, thresholds[0], flips[0])
            for w, threshold, flip in zip(hidden, thresholds[1:], flips[1:], strict=True):
                x = kernel.product_bits(x, w, threshold, flip)
            return kernel.product(x, last)

        def prepare(rows: Tensor | None) -> Tensor:
            taken = self.pixels if rows is None else self.pixels[rows]
            return taken.to(device, copy=device != "cpu")

        return Subject(prepare, run, [self.weights[0], hidden, last])
