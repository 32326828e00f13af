"""Products of packed words on CUDA cores: an outer product of rows and columns, word by word.

Both operands lie word-major, so that a lane reads a word of four neighbours in one access. Three
ways to count ``popc(a ^ b)``, chosen by ``form``:

- ``popc``: a LOP3, a POPC and half an IADD3 a word and output.
- ``csa3``: words in pairs through a full adder whose sum stays in a register: with the running sum
  s, ``y1 = s ^ a1 ^ b1`` and ``y2 = y1 ^ a2 ^ b2`` are a LOP3 each, and so is the carry, which is
  set where s falls on the way, ``(s & ~y1) | (y1 & ~y2)``. A word: 1.5 LOP3, half a POPC.
- ``csa7``: pairs of carries through a second adder. A word: 2 LOP3, a quarter of a POPC.

POPC issues 16 lanes a clock and SM, LOP3 and IADD3 64: bounds of 16, 32 and 29 words a clock.

A tile is [groups, rows, columns]. A lane has four neighbouring columns, which fill a group of
warps, and the groups part the rows. So a lane reads four words of either operand at once, those
that it uses, and no warp waits for another. Without groups Triton read b in one layout and used it
in another: each word crossed shared memory, with barriers, and csa3 took 180 registers and 4.3 ms
on an H200 at 8192^3 in place of 87 and 2.6 ms.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton.bits import fires, pack_columns, popcount
from kernels.triton.device import INTERPRETED, processors

WORD_STEP = 4  # words of an operand are a multiple of it; words beyond K are 0
ROW_STEP = 512  # rows of an operand are laid out in a multiple of it; what they hold is never used


class Tile(NamedTuple):
    """Outputs of a program, its warps, and words a step of its loop."""

    m: int
    n: int
    warps: int
    unroll: int

    @property
    def groups(self) -> int:
        """Groups of warps, with rows of their own: four columns a lane fill a group."""
        return max(1, 128 * self.warps // self.n)


# From large to small: the first that gives every processor a program. A lane with 8 rows reads 3
# times a word for 32 outputs, one with 4 rows twice for 16. Carry-save forms keep one or two
# registers more an output: more programs a processor are worth more to them than fewer reads.
TILES = {
    "popc": (Tile(32, 128, 4, 8), Tile(16, 128, 4, 8), Tile(8, 128, 4, 8)),
    "csa3": (Tile(16, 128, 4, 8), Tile(8, 128, 4, 8)),
    "csa7": (Tile(16, 128, 4, 8), Tile(8, 128, 4, 8)),
}
INTERPRETED_TILE = Tile(32, 64, 4, 4)


def is_valid(tile: Tile) -> bool:
    """Return whether operands laid out by ``ROW_STEP`` and ``WORD_STEP`` fit ``tile``."""
    divides = ROW_STEP % tile.m == 0 and ROW_STEP % tile.n == 0 and tile.m % tile.groups == 0
    outputs = tile.m * tile.n // (32 * tile.warps)
    return divides and tile.n % 32 == 0 and tile.unroll % WORD_STEP == 0 and 1 <= outputs <= 64


def choose_tile(form: str, m: int, n: int) -> Tile:
    """Return the largest tile that gives every processor a program, else the smallest."""
    if INTERPRETED:
        return INTERPRETED_TILE
    for tile in TILES[form]:
        if triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n) >= processors():
            return tile
    return TILES[form][-1]


@triton.jit
def _popc(x, NATIVE: tl.constexpr):
    """Return the ones of x; ``NATIVE`` names the instruction where a factor would hide it."""
    if NATIVE:
        return tl.inline_asm_elementwise(
            "popc.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        return popcount(x)


@triton.jit
def _load(at):
    return tl.load(at).to(tl.uint32, bitcast=True)


@triton.jit
def _falls(y0, y1, y2):
    # (y0 & ~y1) | (y1 & ~y2), without the complement, which the interpreter lacks on uint32.
    return (y0 ^ (y0 & y1)) | (y1 ^ (y1 & y2))


@triton.jit
def _pair(a_at, b_at, a_stride, b_stride, s, U: tl.constexpr):
    """Add the words U and U + 1 to the running sum s; return the sum and the carry."""
    a1, b1 = _load(a_at + U * a_stride), _load(b_at + U * b_stride)
    a2, b2 = _load(a_at + (U + 1) * a_stride), _load(b_at + (U + 1) * b_stride)
    y1 = s ^ a1[:, :, None] ^ b1
    y2 = y1 ^ a2[:, :, None] ^ b2
    return y2, _falls(s, y1, y2)


@triton.jit(do_not_specialize=["k", "words", "out_words"])
def _product(
    a_ptr,
    b_ptr,
    out_ptr,
    threshold_ptr,
    flip_ptr,
    m,
    n,
    k,
    words,
    out_words,
    a_stride,
    b_stride,
    out_stride,
    FORM: tl.constexpr,
    PACKED: tl.constexpr,
    NATIVE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    GROUPS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    at_m = tl.program_id(0) * M + tl.arange(0, M)
    at_n = tl.program_id(1) * N + tl.arange(0, N)
    ROWS: tl.constexpr = M // GROUPS
    # Counts of weight 1, 2, 4, and the running sums of weight 1 and 2.
    count = tl.zeros((GROUPS, ROWS, N), tl.int32)
    s = tl.zeros((GROUPS, ROWS, N), tl.uint32)
    t = tl.zeros((GROUPS, ROWS, N), tl.uint32)
    # Not at_m in another shape: Triton would not see that four rows are neighbours.
    row = tl.arange(0, GROUPS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
    a_at = a_ptr + tl.program_id(0) * M + row
    # For each group, though the same: Triton lays all of the loop out as it reads these.
    b_at = b_ptr + at_n[None, None, :] + tl.zeros((GROUPS, 1, 1), tl.int32)
    for _ in range(0, words, UNROLL):
        for _ in tl.static_range(UNROLL // 4):
            if FORM == "popc":
                for u in tl.static_range(4):
                    a, b = _load(a_at + u * a_stride), _load(b_at + u * b_stride)
                    count += popcount(a[:, :, None] ^ b)
            else:
                s, c1 = _pair(a_at, b_at, a_stride, b_stride, s, 0)
                s, c2 = _pair(a_at, b_at, a_stride, b_stride, s, 2)
                if FORM == "csa3":
                    count += _popc(c1, NATIVE) + _popc(c2, NATIVE)
                else:
                    count += _popc((t & c1) | (c1 & c2) | (t & c2), NATIVE)
                    t = t ^ c1 ^ c2
            a_at += 4 * a_stride
            b_at += 4 * b_stride
    if FORM == "csa3":
        count = 2 * count + _popc(s, NATIVE)
    elif FORM == "csa7":
        count = 4 * count + 2 * _popc(t, NATIVE) + _popc(s, NATIVE)
    dots = k - 2 * tl.reshape(count, (M, N))
    rows = (at_m < m)[:, None]
    if PACKED:
        packed = pack_columns(fires(dots, threshold_ptr, flip_ptr, at_n, n), M, N // 32, 32)
        word = tl.program_id(1) * (N // 32) + tl.arange(0, N // 32)
        at = out_ptr + word.to(tl.int64)[None, :] * out_stride + at_m[:, None]
        keep = rows & (word < out_words)[None, :]
        tl.store(at, packed.to(tl.int32, bitcast=True), mask=keep)
    else:
        at = out_ptr + at_m.to(tl.int64)[:, None] * out_stride + at_n[None, :]
        tl.store(at, dots, mask=rows & (at_n < n)[None, :])


def padded(size: int, step: int) -> int:
    """Return ``size`` rounded up to a multiple of ``step``."""
    return -(-size // step) * step


def empty_words(rows: int, k: int, device: torch.device | str) -> torch.Tensor:
    """Return an operand to fill: int32 [words, rows], both rounded up to their steps."""
    words = padded(-(-k // 32), WORD_STEP)
    return torch.empty(words, padded(rows, ROW_STEP), dtype=torch.int32, device=device)


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    shape: tuple[int, int, int],
    form: str,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> None:
    """Write the dots of word-major operands to ``out`` [M, N] int32; M, N, K are ``shape``.

    With ``threshold`` (int32 [N]) and ``flip`` (bool [N]) ``out`` takes the bits
    ``(dot >= threshold) ^ flip`` instead, as a word-major operand of M rows and N columns.
    """
    m, n, k = shape
    if m == 0 or n == 0:
        return
    tile = tile or choose_tile(form, m, n)
    assert is_valid(tile) and a.shape[0] == b.shape[0]
    bits = threshold is not None
    columns = out.shape[0] * 32 if bits else n  # words beyond N are written too, as 0
    # Rows on the first axis: the second ends at 65,535 programs, half a million rows.
    _product[(triton.cdiv(m, tile.m), triton.cdiv(columns, tile.n))](
        a,
        b,
        out,
        threshold,
        flip if flip is None else flip.view(torch.uint8),
        m,
        n,
        k,
        a.shape[0],
        out.shape[0] if bits else 0,
        a.stride(0),
        b.stride(0),
        out.stride(0),
        FORM=form,
        PACKED=bits,
        NATIVE=not INTERPRETED,
        M=tile.m,
        N=tile.n,
        GROUPS=tile.groups,
        UNROLL=min(tile.unroll, a.shape[0] & -a.shape[0]),
        num_warps=tile.warps,
    )
