"""What a GPU's units do at most: the 1-bit product, XOR + POPC, and LOP3 on operands that stay.

Nothing but the unit is waited for: a program reads its operands once, repeats, and stores once. The
bounds that a bench names as ceilings (``harness.bench.ceilings``).
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from kernels.triton import onebit
from kernels.triton.bits import popcount
from kernels.triton.device import INTERPRETED
from kernels.triton.dot import Tile, multiply

# Two warpgroups keep the tensor cores busy in turn: 16 products of 64 x 256 x 256 bits between two
# branches, 8 between two waits. 96 KiB of shared memory hold both operands.
TILE = Tile(64, 32, 64, 4, 1) if INTERPRETED else Tile(128, 256, 256, 8, 3)
UNROLL = 2  # products in a step of the loop
LANES = 64 if INTERPRETED else 1024  # words of a program of ``words``, 8 a thread
WARPS = 4
STEPS = 12  # of each word in a step of the loop
FORMS = ("popc", "lop3")


@triton.jit
def _bits(
    a_ptr,
    b_ptr,
    out_ptr,
    repeats,
    WAY: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    BYTES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    tl.assume(repeats > 1)
    rows, cols, step = tl.arange(0, M), tl.arange(0, N), tl.arange(0, BYTES)
    a = tl.load(a_ptr + rows[:, None] * BYTES + step[None, :])
    b = tl.load(b_ptr + cols[None, :] * BYTES + step[:, None])
    # The first product stands before the loop, and with it the barrier after the operands' store.
    acc = multiply(a, b, tl.zeros((M, N), tl.float32 if WAY == "bits" else tl.int32), WAY)
    for _ in range(1, repeats):
        for _ in tl.static_range(UNROLL):
            acc = multiply(a, b, acc, WAY)
    at = out_ptr + tl.program_id(0) * M * N + rows[:, None] * N + cols[None, :]
    tl.store(at, acc.to(tl.int32, bitcast=True))


def bits(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, repeats: int) -> None:
    """Write ``products(repeats)`` times the popcounts of ``a & b`` to each of out [P, M, N] int32.

    uint8 a [M, BYTES] and b [N, BYTES], the sizes of ``TILE``; P programs do the same.
    """
    tile = TILE
    assert tuple(a.shape) == (tile.m, tile.bytes) and tuple(b.shape) == (tile.n, tile.bytes)
    assert (
        repeats > 1
        and tuple(out.shape[1:]) == (tile.m, tile.n)
        and a.is_contiguous()
        and b.is_contiguous()
    )
    carrier = torch.uint8 if INTERPRETED else torch.float8_e4m3fn
    with nullcontext() if INTERPRETED else onebit.rewriting():
        kernel = _bits[(out.shape[0],)](
            a.view(carrier),
            b.view(carrier),
            out,
            repeats,
            WAY="emulated" if INTERPRETED else "bits",
            M=tile.m,
            N=tile.n,
            BYTES=tile.bytes,
            UNROLL=UNROLL,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    if not INTERPRETED:
        onebit.check(kernel)


def products(repeats: int) -> int:
    """Return how many products of its operands a program of ``bits`` sums."""
    return 1 + (repeats - 1) * UNROLL


def bit_ops(programs: int, repeats: int) -> int:
    """Return the operations of ``bits``, 2 a product of two bits."""
    return 2 * programs * products(repeats) * TILE.m * TILE.n * 8 * TILE.bytes


@triton.jit
def _and_into(x, y, z, NATIVE: tl.constexpr):
    """Return ``x ^ (y & z)``; ``NATIVE`` names the instruction, which steps else share."""
    if NATIVE:
        return tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, $2, $3, 0x78;", "=r,r,r,r", [x, y, z], tl.uint32, True, 1
        )
    else:
        return x ^ (y & z)


@triton.jit
def _or_into(x, y, z, NATIVE: tl.constexpr):
    """Return ``x ^ (y | z)``."""
    if NATIVE:
        return tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, $2, $3, 0x1E;", "=r,r,r,r", [x, y, z], tl.uint32, True, 1
        )
    else:
        return x ^ (y | z)


@triton.jit
def _words(
    x_ptr,
    y_ptr,
    out_ptr,
    repeats,
    FORM: tl.constexpr,
    NATIVE: tl.constexpr,
    LANES: tl.constexpr,
    STEPS: tl.constexpr,
):
    at = tl.program_id(0) * LANES + tl.arange(0, LANES)
    x = tl.load(x_ptr + at).to(tl.uint32, bitcast=True)
    y = tl.load(y_ptr + at).to(tl.uint32, bitcast=True)
    # Each step takes what the last two made, so that none can be moved, merged or left out: with
    # two words that change, the compiler finds a closed form.
    z = x ^ (y << 7)
    for _ in range(0, repeats):
        for _ in tl.static_range(STEPS // 3):
            if FORM == "popc":
                x += popcount(x ^ y).to(tl.uint32)
                y += popcount(y ^ z).to(tl.uint32)
                z += popcount(z ^ x).to(tl.uint32)
            else:
                x = _and_into(x, y, z, NATIVE)
                y = _or_into(y, z, x, NATIVE)
                z = _and_into(z, x, y, NATIVE)
    tl.store(out_ptr + at, (x ^ y ^ z).to(tl.int32, bitcast=True))


def words(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, form: str, repeats: int) -> None:
    """Repeat a step on int32 words x, y [P * LANES] ``STEPS * repeats`` times, then store.

    With ``z = x ^ (y << 7)``, three steps are

    - ``popc``: ``x += popc(x ^ y); y += popc(y ^ z); z += popc(z ^ x)``: a LOP3, a POPC and an
      addition each;
    - ``lop3``: ``x ^= y & z; y ^= z | x; z ^= x & y``: a LOP3 each.

    ``out`` takes ``x ^ y ^ z``.
    """
    assert form in FORMS and out.numel() % LANES == 0 and x.shape == y.shape == out.shape
    _words[(out.numel() // LANES,)](
        x,
        y,
        out,
        repeats,
        FORM=form,
        NATIVE=not INTERPRETED,
        LANES=LANES,
        STEPS=STEPS,
        num_warps=WARPS,
    )


def word_ops(programs: int, repeats: int) -> int:
    """Return the operations of ``words``, a step a word of 32 products: 64 operations."""
    return 64 * programs * LANES * STEPS * repeats
