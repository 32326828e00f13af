"""3x3 convolutions of packed maps on tensor cores, straight from the map: no patches in memory.

An implicit product: row p is a position of a map, and K runs over the bytes of its nine taps, which
are read from the map where they lie and as 0 beyond its border. With the AND form of ``dot``

    dot = 9C - 2*pa - 2*pb + 4 * popc(a & b) + sum of w over the taps outside,

pa the bits set in the taps inside. All but pa and AND depend on the filter and on which borders p
touches: 16 classes, a table. A 2x2 max-pool before batch norm and sign takes the largest of four
dots, then the threshold (for bits: OR where the channel rises, AND where it falls); positions are
numbered window by window, so that the four lie in one program.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from kernels.conv import TAPS, border_classes, tap_sums
from kernels.packing import Packed, words_for
from kernels.triton import dot, onebit
from kernels.triton.base import check_bits
from kernels.triton.bits import fires, pack_columns, popcount
from kernels.triton.device import DEVICE, INTERPRETED
from kernels.triton.outer import padded
from kernels.triton.pack import row_ones

# K = 9C fills whole steps of 64 bytes to 75, 90 and 100 % at 128, 256 and 512 channels; of 128,
# to 56, 75 and 90 %. With steps of 64, 128 x 128 outputs spill when pooled.
TILE = dot.Tile(64, 64, 64, 4, 1) if INTERPRETED else dot.Tile(128, 64, 64, 4, 4)


@triton.jit
def position_of(p, height, width, POOL: tl.constexpr):
    """Return image, row and column of position p, counted window by window if ``POOL``."""
    if POOL:
        window, corner = p // 4, p % 4
        wide, high = width // 2, height // 2
        x = window % wide * 2 + corner % 2
        y = window // wide % high * 2 + corner // 2
        image = window // (wide * high)
    else:
        x, y, image = p % width, p // width % height, p // (width * height)
    return image, y, x


@triton.jit
def count_words(words_ptr, at, inside, WORDS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the bits set in rows ``at`` of ``WORDS`` words, at most ``WIDTH``, 0 outside."""
    word = tl.arange(0, WIDTH)
    used = inside[:, None] & (word < WORDS)[None, :]
    words = tl.load(words_ptr + at[:, None] * WORDS + word[None, :], mask=used, other=0)
    return tl.sum(popcount(words.to(tl.uint32, bitcast=True)), axis=1)


@triton.jit
def store_greatest(
    out_ptr, winner_ptr, dots, p, positions, cols, n, M: tl.constexpr, N: tl.constexpr
):
    """Store the greatest of each window's four dots, int32 [M, N], and its corner."""
    # The window's corner below the dot: the first of ties has the greatest.
    key = dots * 4 + (3 - p % 4)[:, None]
    key = tl.max(tl.reshape(key, (M // 4, 4, N)), axis=1)
    row = tl.program_id(0) * (M // 4) + tl.arange(0, M // 4)
    at = row.to(tl.int64)[:, None] * n + cols[None, :]
    inside = (row < positions // 4)[:, None] & (cols < n)[None, :]
    tl.store(out_ptr + at, (key >> 2).to(tl.float32), mask=inside)
    tl.store(winner_ptr + at, (3 - (key & 3)).to(tl.uint8), mask=inside)


@triton.jit
def _conv(
    map_ptr,
    filter_ptr,
    out_ptr,
    ones_ptr,
    table_ptr,
    threshold_ptr,
    flip_ptr,
    winner_ptr,
    positions,
    n,
    height,
    width,
    row_bytes,
    out_row,
    WAY: tl.constexpr,
    POOL: tl.constexpr,
    PACKED: tl.constexpr,
    COUNT: tl.constexpr,
    CHANNEL_BYTES: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    BYTES: tl.constexpr,
):
    tl.assume(row_bytes > 0)
    p = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    image, y, x = position_of(p, height, width, POOL)
    centre = (image.to(tl.int64) * height + y) * width + x
    used = p < positions
    step = tl.arange(0, BYTES)
    filter_at = filter_ptr + (cols % n).to(tl.int64)[None, :] * row_bytes + step[:, None]
    acc = tl.zeros((M, N), tl.float32 if WAY == "bits" else tl.int32)
    for start in range(0, row_bytes, BYTES):
        byte = start + step
        tap = byte // CHANNEL_BYTES
        dy, dx = tap // 3 - 1, tap % 3 - 1
        ty, tx = y[:, None] + dy[None, :], x[:, None] + dx[None, :]
        inside = (ty >= 0) & (ty < height) & (tx >= 0) & (tx < width)
        inside = inside & used[:, None] & (tap < 9)[None, :]
        shift = (dy * width + dx) * CHANNEL_BYTES + byte % CHANNEL_BYTES
        at = map_ptr + centre[:, None] * CHANNEL_BYTES + shift[None, :]
        a = tl.load(at, mask=inside, other=0.0 if WAY == "bits" else 0)
        acc = dot.multiply(a, tl.load(filter_at), acc, WAY)
        filter_at += BYTES
    ones = tl.zeros((M,), tl.int32)
    for tap in tl.static_range(9):
        ty, tx = y + (tap // 3 - 1), x + (tap % 3 - 1)
        inside = (ty >= 0) & (ty < height) & (tx >= 0) & (tx < width) & used
        at = centre + (tap // 3 - 1) * width + (tap % 3 - 1)
        if COUNT:  # ones_ptr is the map again, as words
            ones += count_words(ones_ptr, at, inside, CHANNEL_BYTES // 4, COUNT)
        else:
            ones += tl.load(ones_ptr + at, mask=inside, other=0)
    first, last = (y == 0).to(tl.int32), (y == height - 1).to(tl.int32)
    left, right = (x == 0).to(tl.int32), (x == width - 1).to(tl.int32)
    touches = first + 2 * last + 4 * left + 8 * right
    kept = used[:, None] & (cols < n)[None, :]
    rest = tl.load(table_ptr + touches[:, None] * n + cols[None, :], mask=kept, other=0)
    dots = 4 * acc.to(tl.int32, bitcast=True) - 2 * ones[:, None] + rest
    if PACKED:
        outputs: tl.constexpr = M // 4 if POOL else M
        if POOL:
            dots = tl.max(tl.reshape(dots, (outputs, 4, N)), axis=1)
        row = tl.program_id(0) * outputs + tl.arange(0, outputs)
        bits = fires(dots, threshold_ptr, flip_ptr, cols, n)
        packed = pack_columns(bits, outputs, N // 32, 32)
        word = tl.program_id(1) * (N // 32) + tl.arange(0, N // 32)
        total = positions // 4 if POOL else positions
        keep = (row < total)[:, None] & (word < out_row)[None, :]
        at = out_ptr + row.to(tl.int64)[:, None] * out_row + word[None, :]
        tl.store(at, packed.to(tl.int32, bitcast=True), mask=keep)
    elif POOL:
        store_greatest(out_ptr, winner_ptr, dots, p, positions, cols, n, M, N)
    else:
        at = out_ptr + p.to(tl.int64)[:, None] * out_row + cols[None, :]
        tl.store(at, dots.to(out_ptr.dtype.element_ty), mask=kept)


def launch(
    words: torch.Tensor,
    filters: torch.Tensor,
    table: torch.Tensor,
    out: torch.Tensor,
    positions: int,
    size: tuple[int, int],
    pool: bool = False,
    *,
    ones: torch.Tensor | None = None,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
    winners: torch.Tensor | None = None,
) -> None:
    """Write the dots of a packed map of ``size`` and filters, or with ``threshold`` their bits.

    ``words`` [..., words of a position] and ``filters`` [N, words] are contiguous, of any dtype of
    words, filters in whole steps; ``ones``: the bits set in each position, else they are counted.
    Greatest dots of windows come with their ``winners``.
    """
    n, packed = len(filters), threshold is not None
    if positions == 0 or n == 0:
        return
    columns = out.shape[-1] * 32 if packed else n
    carrier = torch.uint8 if INTERPRETED else torch.float8_e4m3fn
    map_bytes, filter_bytes = words.view(carrier), filters.view(carrier)
    count = 0 if ones is not None else int(triton.next_power_of_2(map_bytes.shape[-1] // 4))
    with nullcontext() if INTERPRETED else onebit.rewriting():
        kernel = _conv[(triton.cdiv(positions, TILE.m), triton.cdiv(columns, TILE.n))](
            map_bytes,
            filter_bytes,
            out,
            words.view(torch.int32) if ones is None else ones,
            table,
            threshold,
            flip if flip is None else flip.view(torch.uint8),
            winners,
            positions,
            n,
            *size,
            filter_bytes.shape[1],
            out.shape[-1],
            WAY="emulated" if INTERPRETED else "bits",
            POOL=pool,
            PACKED=packed,
            COUNT=count,
            CHANNEL_BYTES=map_bytes.shape[-1],
            M=TILE.m,
            N=TILE.n,
            BYTES=TILE.bytes,
            num_warps=TILE.warps,
            num_stages=TILE.stages,
        )
    if not INTERPRETED:
        onebit.check(kernel)


def border_table(filters: Packed) -> torch.Tensor:
    """Return 9C - 2*pb + the sum of each filter over the taps outside: int32 [16, N]."""
    sums = tap_sums(filters)
    return border_classes(sums) - sums.sum(1, dtype=torch.int32)  # 9C - 2*pb = -sum of w


class DirectConv3x3:
    """Filters made ready for maps of one size, on Hopper's 1-bit tensor cores."""

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        """Prepare packed ``filters`` (``kernels.conv.pack_filters``).

        Raises:
            ValueError: filters that are not in nine segments, or elsewhere.
        """
        if filters.segments != TAPS:
            raise ValueError(f"filters must have {TAPS} segments, got {filters.segments}")
        if filters.words.device.type != DEVICE:
            raise ValueError(f"filters are on device {filters.words.device}; allowed: {DEVICE}")
        self.size, self.n, self.channels = (height, width), filters.rows, filters.k // TAPS
        row_bytes = 8 * int(filters.words.shape[1])
        self._filters = torch.zeros(
            self.n, padded(row_bytes, TILE.bytes), dtype=torch.uint8, device=filters.words.device
        )
        self._filters[:, :row_bytes] = filters.words.view(torch.uint8)
        self._table = border_table(filters)

    def __call__(self, words: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N] of a packed map int64 [B, H, W, ceil(C/64)].

        Raises:
            TypeError, ValueError: a map of another dtype, size or device.
        """
        positions = self._check(words)
        out = torch.empty(positions, self.n, dtype=torch.int32, device=words.device)
        self._launch(words, out, positions)
        return out

    def bits(
        self, words: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor, pool: bool = False
    ) -> torch.Tensor:
        """Return the packed map of ``(dot >= threshold) ^ flip``, pooled 2x2 before if ``pool``.

        Returns:
            int64 [B, H, W, ceil(N/64)], or [B, H//2, W//2, ceil(N/64)].

        Raises:
            TypeError, ValueError: as ``__call__``, or thresholds that do not fit.
        """
        check_bits(threshold, flip, self.n)
        self._check(words)
        height, width = (side // 2 for side in self.size) if pool else self.size
        shape = (len(words), height, width, words_for(self.n))
        out = torch.empty(shape, dtype=torch.int64, device=words.device)
        positions = len(words) * height * width * (4 if pool else 1)
        self._launch(words, out.view(torch.int32).flatten(0, 2), positions, threshold, flip, pool)
        return out

    def _check(self, words: torch.Tensor) -> int:
        if not isinstance(words, torch.Tensor) or words.dtype != torch.int64:
            found = getattr(words, "dtype", type(words).__name__)
            raise TypeError(f"a packed map must be a torch.int64 tensor, got {found}")
        wanted = (*self.size, words_for(self.channels))
        if words.ndim != 4 or tuple(words.shape[1:]) != wanted:
            raise ValueError(
                f"a packed map of {self.channels} channels must have shape "
                f"[B, {', '.join(map(str, wanted))}], got {list(words.shape)}"
            )
        if words.device.type != DEVICE:
            raise ValueError(f"the map is on device {words.device}; allowed: {DEVICE}")
        return len(words) * self.size[0] * self.size[1]

    def _launch(
        self,
        words: torch.Tensor,
        out: torch.Tensor,
        positions: int,
        threshold: torch.Tensor | None = None,
        flip: torch.Tensor | None = None,
        pool: bool = False,
    ) -> None:
        flat = words.contiguous().view(-1, words.shape[3])
        operands = (flat, self._filters, self._table, out, positions, self.size)
        launch(*operands, pool, ones=row_ones(flat), threshold=threshold, flip=flip)
