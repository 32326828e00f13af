"""Dropout on the way into a product with bfloat16 operands, and on the way back: one pass each.

Real inputs go in as bfloat16 pieces: each rounds what those before it leave, and three are the
whole of a finite float32.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton.base import check_values
from kernels.triton.device import INTERPRETED
from kernels.triton.rules import to_bfloat16

BLOCK = 1024  # values of a program: 16 bytes of float32 a lane, twice
INTERPRETED_BLOCK = 1 << 14
WARPS = 4
MOST_PIECES = 3


@triton.jit
def _drop(
    x_ptr, draws_ptr, out_ptr, size, keep,
    PIECES: tl.constexpr, DROPS: tl.constexpr, NATIVE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    x = tl.load(x_ptr + at, mask=inside, other=0)
    if DROPS:
        x = tl.where(tl.load(draws_ptr + at, mask=inside, other=1) < keep, x, 0.0)
    for _ in tl.static_range(PIECES):
        piece = to_bfloat16(x, NATIVE)
        tl.store(out_ptr + at, piece, mask=inside)
        out_ptr += size
        x -= piece.to(tl.float32)


@triton.jit
def _join(
    pieces_ptr, draws_ptr, out_ptr, size, keep,
    PIECES: tl.constexpr, DROPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros((BLOCK,), tl.float32)
    for piece in tl.static_range(PIECES - 1, -1, -1):  # the smallest first
        total += tl.load(pieces_ptr + piece * size + at, mask=inside, other=0)
    if DROPS:
        total = tl.where(tl.load(draws_ptr + at, mask=inside, other=1) < keep, total, 0.0)
    tl.store(out_ptr + at, total, mask=inside)


def _launch(kernel, size: int, *arguments: object, **constants: object) -> None:
    block = INTERPRETED_BLOCK if INTERPRETED else BLOCK
    if size:
        grid = (triton.cdiv(size, block),)
        kernel[grid](*arguments, **constants, BLOCK=block, num_warps=WARPS)


def _check_draws(draws: torch.Tensor | None, rate: float, shape: tuple[int, ...]) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    if (draws is None) != (rate == 0):
        raise ValueError(f"draws belong to a rate above 0, got draws {draws} at rate {rate}")
    if draws is not None and check_values("draws", draws, (torch.float32,)).shape != shape:
        raise ValueError(f"draws must have shape {list(shape)}, got {list(draws.shape)}")


def drop(x: torch.Tensor, draws: torch.Tensor | None, rate: float, pieces: int = 1) -> torch.Tensor:
    """Return bfloat16 [P, M, K], pieces of ``x`` where ``draws < 1 - rate``, else 0; not scaled.

    Args:
        x: float32 [M, K]; one piece holds values such as ±1 or odd integers up to 255.
        draws: float32 [M, K], uniform on [0, 1); None at rate 0.
        rate: share of inputs that are dropped.
        pieces: P, 1 to 3: piece 0 rounds x, each further one rounds what the earlier ones leave.

    Raises:
        TypeError, ValueError: another dtype, shape, device or number of pieces, or a rate outside
            of [0, 1).
    """
    if pieces not in range(1, MOST_PIECES + 1):
        raise ValueError(f"pieces must be 1 to {MOST_PIECES}, got {pieces!r}")
    x = check_values("x", x, (torch.float32,)).contiguous()
    _check_draws(draws, rate, tuple(x.shape))
    out = torch.empty((pieces, *x.shape), dtype=torch.bfloat16, device=x.device)
    _launch(
        _drop, x.numel(), x, draws, out, x.numel(), 1 - rate,
        PIECES=pieces, DROPS=rate > 0, NATIVE=not INTERPRETED,
    )  # fmt: skip
    return out


def join(products: torch.Tensor, draws: torch.Tensor | None, rate: float) -> torch.Tensor:
    """Return float32 [M, K], the sum of ``products`` [P, M, K] where ``draws < 1 - rate``, else 0.

    The way back through :func:`drop` for a gradient that was multiplied in P pieces.

    Raises:
        TypeError, ValueError: another dtype, shape or device, or a rate outside of [0, 1).
    """
    if products.ndim != 3 or not 1 <= len(products) <= MOST_PIECES:
        raise ValueError(
            f"products must have shape [1..{MOST_PIECES}, M, K], got {list(products.shape)}"
        )
    check_values("products", products[0], (torch.float32,))
    shape = tuple(products.shape[1:])
    _check_draws(draws, rate, shape)
    out = torch.empty(shape, device=products.device)
    _launch(
        _join, out.numel(), products.contiguous(), draws, out, out.numel(), 1 - rate,
        PIECES=len(products), DROPS=rate > 0,
    )  # fmt: skip
    return out
