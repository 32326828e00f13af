"""What this machine can do at most, measured in the same run: copies, products, popcounts."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from harness.bench.gate import NoTimeError
from kernels.cpu import chains, peaks, sliced, slices, tabled, vectors, xnor
from kernels.cpu.counts import LANES
from kernels.cpu.jit import jit
from kernels.cpu.tile import TILE_ROWS, dots_tile
from kernels.cpu.xnor import prefix_rows

COPY_BYTES = 1 << 28  # beyond the last-level cache
_WORDS, _PANELS, _REPEATS = 64, 4, 5_000  # K of 4096 bits, 16 KiB of weights: the L1 cache
_STEPS = 1_000_000  # popcounts a word: 3 ms
_LENGTH = 62  # bytes of a row, for tables: K of 496 bits, 64 rows and 64 weights


@dataclass(frozen=True)
class Bound:
    """What is clocked: ``run`` moves ``bytes`` and does ``ops`` operations; ``check`` its result.

    ``check`` raises ``NoTimeError`` for a wrong one.
    """

    run: Callable[[], Any]
    bytes: int
    ops: int
    check: Callable[[], None] | None = None


@dataclass(frozen=True)
class Ceiling:
    """A bound by name; ``prepare`` makes it ready, or raises ``NoTimeError`` where it cannot."""

    name: str
    prepare: Callable[[], Bound]


@jit(parallel=True)
def _tiles(words, panels, count, k, repeats, out):
    even, n = words.shape[1] + words.shape[1] % 2, count * LANES
    for thread in numba.prange(out.shape[0]):
        alpha = np.empty((words.shape[1] + 1) * TILE_ROWS, dtype=np.uint64)
        prefix_rows(words, 0, TILE_ROWS, alpha)
        for _ in range(repeats):
            for panel in range(count):
                at = panel * even * LANES
                dots_tile(TILE_ROWS, alpha, panels, at, even, k, out[thread], panel * LANES, n)


def _popcount_peak() -> Bound:
    threads, n, k = numba.get_num_threads(), _PANELS * LANES, 64 * _WORDS
    words = np.arange(n * _WORDS, dtype=np.int64).reshape(n, _WORDS)
    laid = xnor.panels(words).view(np.uint64)
    rows = np.ascontiguousarray(words[:TILE_ROWS]).view(np.uint64)
    out = np.empty((threads, TILE_ROWS * n), dtype=np.int32)
    ops = 2 * TILE_ROWS * n * k * _REPEATS * threads
    return Bound(lambda: _tiles(rows, laid, _PANELS, k, _REPEATS, out), 0, ops)


@jit()
def _lookups(octets, laid, table, repeats):
    block, nibbles, sums = tabled.buffers(laid.shape[1])
    for row in range(tabled.BLOCK):
        tabled.arrange(octets, row * laid.shape[1], laid.shape[1], row, block)
    for _ in range(repeats):
        tabled.count(block, tabled.BLOCK, laid, 0, table, nibbles, sums)
    return sums[0]


@jit(parallel=True)
def _lookup_tiles(octets, laid, table, repeats, out):
    for thread in numba.prange(out.shape[0]):
        out[thread] = _lookups(octets, laid, table, repeats)


def _lookup_peak() -> Bound:
    threads = numba.get_num_threads()
    words = np.arange(tabled.BLOCK * 8, dtype=np.int64).reshape(-1, 8)
    laid, octets = tabled.panels(words, _LENGTH), words.view(np.uint8).reshape(-1)
    out = np.empty(threads, dtype=np.int64)
    ops = 2 * tabled.BLOCK * len(words) * 8 * _LENGTH * _REPEATS * threads

    def run() -> None:
        _lookup_tiles(octets, laid, tabled.TABLES, _REPEATS, out)

    return Bound(run, 0, ops)


@jit(parallel=True)
def _slice_tiles(words, laid, steps, repeats, out):
    for thread in numba.prange(out.shape[0]):
        chained, tables, matrices, ones, kept, _ = sliced.buffers(steps, 1, slices.LEAST)
        sliced.arrange(words, 0, words.shape[0], chained)
        sliced.prepare_run(chained, 1, 0, steps, tables, matrices, kept)
        for _ in range(repeats):
            sliced.count(
                tables, matrices, 1, sliced.IN_ORDER, laid, 0, steps, kept, ones, 0, slices.LEAST
            )
        out[thread] = ones[0]


def _slice_peak() -> Bound:
    threads, steps = numba.get_num_threads(), slices.RUN // chains.INDICES
    octets = steps * chains.FIVE
    words = np.arange(sliced.PANEL * octets, dtype=np.int64).reshape(sliced.PANEL, octets)
    rows = np.ascontiguousarray(words[: slices.ROWS]).view(np.uint64)
    laid, out = sliced.panels(words, octets), np.empty(threads, dtype=np.int64)
    repeats = 8 * _REPEATS  # 3 ms
    ops = 2 * sliced.PANEL * octets * 8 * slices.ROWS * repeats * threads
    return Bound(lambda: _slice_tiles(rows, laid, steps, repeats, out), 0, ops)


def copy(device: str) -> Bound:
    """Return one read and one write of 256 MiB."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return Bound(lambda: target.copy_(source), 2 * COPY_BYTES, 0)


def _fp32_product() -> Bound:
    size = 2048
    a, b = (torch.ones(size, size) for _ in range(2))
    return Bound(lambda: torch.mm(a, b), 12 * size**2, 2 * size**3)


def _count() -> Bound:
    if sliced.usable(8 * _LENGTH):
        return _slice_peak()
    return _lookup_peak() if tabled.usable(8 * _LENGTH) else _popcount_peak()


def _vector_popcounts() -> Bound:
    if not vectors.VPOPCNT:
        raise NoTimeError("unavailable", "this processor has no vector popcount (VPOPCNTQ)")
    words = peaks.seeds(numba.get_num_threads())
    ops = 2 * 64 * words.size * _STEPS
    return Bound(lambda: peaks.popcounts(words, _STEPS), 0, ops)


def ceilings(device: str) -> list[Ceiling]:
    """Return the bounds to measure on a device; those of a GPU: ``harness.bench.ceilings_gpu``.

    On a CPU:

    - ``copy``: one read and one write of 256 MiB.
    - ``fp32-product``: ``torch.mm`` of 2048³.
    - ``xor+popcount``: the tile of ``xnor-cpu`` on operands that stay in the L1 cache, by slices,
      tables or popcounts as it goes here.
    - ``popcount``: VPOPCNTQ alone, in registers: what a kernel that counts every xored word could
      reach. That of ``xnor-cpu`` counts one word for two, and may pass it.
    """
    if device == "cpu":
        return [
            Ceiling("copy", lambda: copy(device)),
            Ceiling("fp32-product", _fp32_product),
            Ceiling("xor+popcount", _count),
            Ceiling("popcount", _vector_popcounts),
        ]
    from harness.bench.ceilings_gpu import gpu_ceilings

    return gpu_ceilings()
