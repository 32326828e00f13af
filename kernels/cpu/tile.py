"""Tiles of the packed product: a few rows times a panel of 8, to dots or straight to bits.

Rows share their length and thresholds, or, in a convolution, have their own by the borders that a
position touches.
"""
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


def _bounds(context: Any, builder: Any, sig: Any, args: Any, first: int) -> list[Any]:
    """Emit each row's 8 numbers: the arguments from ``first`` on are bounds, places and panel."""
    word = ir.IntType(64)
    at = builder.mul(args[first + 2], word(LANES))
    bounds = pointer(context, builder, sig.args[first], args[first], at)
    places = pointer(context, builder, sig.args[first + 1], args[first + 1], word(0))
    rows = range(sig.args[0].literal_value)
    starts = [builder.load(builder.gep(places, [word(i)])) for i in rows]
    return [load(builder, builder.gep(bounds, [start]), _DOTS, 4) for start in starts]


def _rows(builder: Any, values: list[Any], base: Any, stride: Any) -> None:
    """Emit the stores of a value a row, ``stride`` elements apart."""
    for i, value in enumerate(values):
        row = builder.gep(base, [builder.mul(stride, ir.IntType(64)(i))])
        store(builder, value, row, 4 if value.type == _DOTS else 1)


def _reached(builder: Any, dots: list[Any], bounds: list[Any], flip: Any) -> list[Any]:
    """Emit each row's byte of ``(dot >= bound) ^ flip``."""
    octet = ir.IntType(LANES)
    reached = (builder.icmp_signed(">=", *pair) for pair in zip(dots, bounds, strict=True))
    return [builder.xor(builder.bitcast(bits, octet), flip) for bits in reached]


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
        _rows(builder, _emit_dots(context, builder, sig, args), base, args[8])
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
        at = builder.mul(args[8], ir.IntType(64)(LANES))
        bound = load(builder, pointer(context, builder, sig.args[6], args[6], at), _DOTS, 4)
        flip = builder.load(pointer(context, builder, sig.args[7], args[7], args[8]))
        base = pointer(context, builder, sig.args[9], args[9], args[10])
        dots = _emit_dots(context, builder, sig, args)
        _rows(builder, _reached(builder, dots, [bound] * len(dots), flip), base, args[11])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def bordered_dots_tile(
    typingctx, rows, alpha, beta, beta_at, words, k, missing, places, panel, out, out_at, stride
):
    """As ``dots_tile``, plus ``missing[places[i] + 8*panel + l]``, int32."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, alpha, beta, place, place, place, missing, places, place, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = pointer(context, builder, sig.args[9], args[9], args[10])
        missing = _bounds(context, builder, sig, args, 6)
        pairs = zip(_emit_dots(context, builder, sig, args), missing, strict=True)
        _rows(builder, [builder.add(*pair) for pair in pairs], base, args[11])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def bordered_bits_tile(
    typingctx, rows, alpha, beta, beta_at, words, k, bounds, places, panel, flips, out, out_at,
    stride,
):  # fmt: skip
    """As ``bits_tile``, with row i's thresholds at ``bounds[places[i] + 8*panel + l]``."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, alpha, beta, place, place, place, bounds, places, place, flips, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        flip = builder.load(pointer(context, builder, sig.args[9], args[9], args[8]))
        base = pointer(context, builder, sig.args[10], args[10], args[11])
        dots = _emit_dots(context, builder, sig, args)
        bounds = _bounds(context, builder, sig, args, 6)
        _rows(builder, _reached(builder, dots, bounds, flip), base, args[12])
        return context.get_dummy_value()

    return signature, generate
