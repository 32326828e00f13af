"""Tiles of the packed product: a few rows times a panel of 8, to dots or straight to bits."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from kernels.cpu.counts import LANES, VECTOR, emit_counts
from kernels.cpu.vectors import AVX512, load, pointer, splat, store

# Two vectors of state an output row. With the 32 registers of AVX-512 8 rows spill nothing: 2.38
# TOP/s a core at 2048^3, against 2.26 with 12 rows and 8 spills. AVX2 and NEON hold three rows: a
# Zen 3 core gives 0.65 TOP/s at K = 1024 and 0.72 at 4096. Carry-save adders over 8 words before
# the table of nibbles (42 vector instructions for 8 words in place of some 80) gave 0.43 and 0.73
# in the same minutes: summing up four outputs costs as much as 30 words. So they are not here.
TILE_ROWS = 8 if AVX512 else 3
_DOTS = ir.VectorType(ir.IntType(32), LANES)


def _emit_dots(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Emit ``k - 2 * ones`` of a tile whose arguments begin as those of ``dots_tile``."""
    _, alpha, beta, beta_at, words, k = args[:6]
    a = pointer(context, builder, sig.args[1], alpha, ir.IntType(64)(0))
    b = pointer(context, builder, sig.args[2], beta, beta_at)
    length = splat(builder, k, VECTOR)
    one = ir.Constant(VECTOR, [1] * LANES)
    rows = sig.args[0].literal_value
    totals = emit_counts(builder, rows, a, b, words)
    return [builder.trunc(builder.sub(length, builder.shl(total, one)), _DOTS) for total in totals]


@intrinsic(prefer_literal=True)
def dots_tile(typingctx, rows, alpha, beta, beta_at, words, k, out, out_at, stride):
    """``out[out_at + i*stride + l] = k - 2*sum_t popc`` for rows i and lanes l.

    ``alpha[t, i]`` and ``beta[t, l]`` are prefix xors, ``t < words``, which is even; ``rows`` is a
    literal.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(rows, alpha, beta, place, place, place, out, place, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = pointer(context, builder, sig.args[6], args[6], args[7])
        for i, dots in enumerate(_emit_dots(context, builder, sig, args)):
            row = builder.gep(base, [builder.mul(args[8], ir.IntType(64)(i))])
            store(builder, dots, row, 4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def bits_tile(
    typingctx, rows, alpha, beta, beta_at, words, k, threshold, flips, panel, out, out_at, stride
):
    """``out[out_at + i*stride]`` = the byte of ``(dot >= threshold) ^ flips`` of rows i.

    As ``dots_tile``; ``threshold`` int32 and ``flips`` uint8 are read for the 8 outputs of
    ``panel``.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, alpha, beta, place, place, place, threshold, flips, place, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        at = builder.mul(args[8], word(LANES))
        bound = load(builder, pointer(context, builder, sig.args[6], args[6], at), _DOTS, 4)
        flip = builder.load(pointer(context, builder, sig.args[7], args[7], args[8]))
        base = pointer(context, builder, sig.args[9], args[9], args[10])
        for i, dots in enumerate(_emit_dots(context, builder, sig, args)):
            reached = builder.bitcast(builder.icmp_signed(">=", dots, bound), ir.IntType(LANES))
            row = builder.gep(base, [builder.mul(args[11], word(i))])
            builder.store(builder.xor(reached, flip), row)
        return context.get_dummy_value()

    return signature, generate
