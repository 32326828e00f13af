"""A 3x3 convolution of packed maps as a case: to int32 dots, or to pooled bits."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.bench.cases import Case
from harness.bench.operands import generator_of, random_signs, sampled
from harness.bench.subject import Subject
from kernels import conv, reference
from kernels.base import Kernel
from kernels.packing import Packed, pack_rows, pack_threshold, unpack_rows

SAMPLED_IMAGES = 4  # that the reference convolves


def _rows_of(maps: Tensor) -> Tensor:
    """Return maps [B, N, H, W] as rows [B, H*W*N], channels fastest."""
    return maps.permute(0, 2, 3, 1).flatten(1)


class Convolution:
    """Random ±1 maps and filters; a row of the result is an image."""

    def __init__(self, case: Case) -> None:
        generator, side = generator_of(case), case.side
        self.case, self.rows = case, sampled(case.m, SAMPLED_IMAGES)
        self.channels = case.k // conv.TAPS
        signs = random_signs(case.m * side**2, self.channels, generator)
        self.words = signs.words.view(case.m, side, side, -1)
        taps = random_signs(case.n * conv.TAPS, self.channels, generator)
        self.filters = Packed(taps.words.view(case.n, -1), case.k, conv.TAPS)
        self.threshold = (case.k**0.5 * torch.randn(case.n, generator=generator)).round().int()
        self.flip = torch.randint(0, 2, (case.n,), generator=generator).bool()
        maps = self._reference()
        self.expected = _rows_of(maps)
        pooled = functional.max_pool2d(maps.double(), 2).int().permute(0, 2, 3, 1)
        bits = reference.threshold(pooled.reshape(-1, case.n), self.threshold, self.flip)
        self.expected_bits = bits.reshape(len(maps), -1)

    def _reference(self) -> Tensor:
        x = conv.unpack_map(self.words[self.rows], self.channels)
        return reference.conv(x, conv.unpack_filters(self.filters))

    def subject(self, kernel: Kernel, includes: str) -> Subject | None:
        """Return the convolution for one kernel, from packed maps on, or from ±1 in the library's
        dtype where it convolves those.

        ``conv`` ends in int32 dots. ``conv+bits`` pools 2x2 and ends in packed bits; it is None for
        a kernel whose activations are not packed.
        """
        device, case, side = kernel.device, self.case, self.case.side
        filters = self.filters.to(device)  # from the host: each time other memory on a GPU

        def prepare(rows: Tensor | None) -> Tensor:
            return (self.words if rows is None else self.words[rows]).to(device)

        if includes == "conv":
            made = conv.Conv3x3(kernel, filters, side, side)
            return Subject(
                lambda rows: made.operand(prepare(rows)),
                made.dots,
                filters,
                lambda dots: dots.reshape(-1, side**2 * case.n),
            )
        if not kernel.packed:
            return None
        run = self._to_bits(kernel, filters)
        return Subject(prepare, run, filters, self._unpacked, self.expected_bits)

    def _to_bits(self, kernel: Kernel, filters: Packed) -> Any:
        side = self.case.side
        threshold, flip = self.threshold.to(kernel.device), self.flip.to(kernel.device)
        direct = kernel.convolution(filters, side, side)
        if direct is not None:
            bits = direct.bits
            return lambda words: bits(words, threshold, flip, pool=True)
        made, flips = conv.Conv3x3(kernel, filters, side, side), pack_rows(flip[None]).words[0]

        def run(words: Tensor) -> Tensor:
            whole = pack_threshold(made(words), threshold, flip).words
            return conv.pool_bits(whole.view(len(words), side, side, -1), flips)

        return run

    def _unpacked(self, words: Tensor) -> Tensor:
        rows = Packed(words.flatten(0, 2), self.case.n)
        return unpack_rows(rows, torch.int8).view(len(words), -1)
