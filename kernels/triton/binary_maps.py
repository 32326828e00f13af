"""3x3 convolutions of a training step's ±1 maps and filters by single bits, forward.

The implicit product of ``kernels.triton.conv``: float32 dots, which are integers, and of a 2x2
max-pool the greatest with the corner that it had. A map's words are written beside its signs
(``norm``); the filters' are packed from their signs after each update, with the table that makes
sums of AND dots. The bits set in a map's taps are counted as the map is read for the product.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton import conv
from kernels.triton.bits import pack_columns
from kernels.triton.device import DEVICE, HOPPER, why_no_gpu
from kernels.triton.maps import HALF, check, check_filters, empty_dots
from kernels.triton.outer import padded

CHANNELS = 64  # a map has a multiple of it: whole words of a packed map
FILTER_ROWS, WARPS = 4, 4


class Filters(NamedTuple):
    """Packed filters [N, 3, 3, C].

    Attributes:
        words: int32 [N, words], tap by tap, 0 beyond them.
        table: int32 [16, N]: of each class of borders ``9C - 2 ones``, and the weights outside.
    """

    words: torch.Tensor
    table: torch.Tensor


def runs(channels: int) -> bool:
    """Return whether the kernels take maps of ``channels`` where the process runs: on Hopper."""
    return channels % CHANNELS == 0 and why_no_gpu(HOPPER, exactly=True) is None


@triton.jit
def _filters(
    signs_ptr, words_ptr, table_ptr, n, row_words, C: tl.constexpr, ROWS: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    used, column, word = row < n, tl.arange(0, WORDS * 32), tl.arange(0, WORDS)
    borders = tl.arange(0, 16)
    table = tl.zeros((ROWS, 16), tl.int32)
    for tap in tl.static_range(9):
        at = signs_ptr + (row * 9 + tap)[:, None] * C + column[None, :]
        positive = tl.load(at, mask=used[:, None] & (column < C)[None, :], other=0.0) > 0
        packed = pack_columns(positive, ROWS, WORDS, 32).to(tl.int32, bitcast=True)
        at = words_ptr + row[:, None] * row_words + (tap * (C // 32) + word)[None, :]
        tl.store(at, packed, mask=used[:, None] & (word < C // 32)[None, :])
        weights = 2 * tl.sum(positive.to(tl.int32), axis=1) - C
        outside = borders & ((tap // 3 == 0) + 2 * (tap // 3 == 2) + 4 * (tap % 3 == 0))
        outside |= borders & (8 * (tap % 3 == 2))
        table += weights[:, None] * ((outside != 0).to(tl.int32) - 1)[None, :]
    at = table_ptr + borders[None, :] * n + row[:, None]
    tl.store(at, table, mask=used[:, None])


def empty_filters(n: int, channels: int) -> Filters:
    """Return memory for :func:`pack_filters_`, with zeros where it writes nothing."""
    row_words = padded(9 * channels // 8, conv.TILE.bytes) // 4
    words = torch.zeros(n, row_words, dtype=torch.int32, device=DEVICE)
    return Filters(words, torch.empty(16, n, dtype=torch.int32, device=DEVICE))


def pack_filters_(signs: torch.Tensor, out: Filters) -> None:
    """Write the words and the table of filters of ±1, float16 [N, 3, 3, C], C a multiple of 64.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory.
    """
    n, channels = len(signs), int(check("filters", signs, HALF).shape[3])
    check_filters(signs, channels)
    if channels % CHANNELS or len(out.words) != n:
        raise ValueError(
            f"filters must have shape [{len(out.words)}, 3, 3, C], C a multiple of {CHANNELS}, "
            f"got {list(signs.shape)}"
        )
    if n:
        _filters[(triton.cdiv(n, FILTER_ROWS),)](
            signs, out.words, out.table, n, out.words.shape[1], C=channels, ROWS=FILTER_ROWS,
            WORDS=int(triton.next_power_of_2(channels // 32)), num_warps=WARPS,
        )  # fmt: skip


def convolve(
    words: torch.Tensor, filters: Filters, pool: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the dots of a packed map and filters, 3x3, zero padding 1: exact in float32.

    Args:
        words: int32 [B, H, W, C/32], contiguous, bit 1 for +1; for ``pool`` H and W are even.
        filters: of :func:`pack_filters_`, of as many channels.
        pool: return the greatest dot of each window of 2 x 2, the first of ties.

    Returns:
        As ``kernels.triton.maps.convolve``: float32 [B, H, W, N] and None, or float32 [B, H/2, W/2,
        N] and which corner of its window won, uint8.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory.
    """
    batch, height, width, row = check("words", words, (torch.int32,)).shape
    n = len(filters.words)
    if padded(36 * row, conv.TILE.bytes) != 4 * filters.words.shape[1] or 32 * row % CHANNELS:
        raise ValueError(
            f"a map of {32 * row} channels does not fit filters of {filters.words.shape[1]} words"
        )
    out, winners = empty_dots((batch, height, width), n, pool)
    operands = (words, filters.words, filters.table, out, batch * height * width)
    conv.launch(*operands, (height, width), pool, winners=winners)
    return out, winners
