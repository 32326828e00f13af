"""Tiles of the packed product: a few rows times a panel of 8, to dots or straight to bits.

Rows share their length and thresholds, or, in a convolution, have their own by the borders that a
position touches.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
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


def _emit_totals(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Emit the ones of a tile whose arguments begin as those of ``dots_tile``."""
    a = pointer(context, builder, sig.args[1], args[1], ir.IntType(64)(0))
    b = pointer(context, builder, sig.args[2], args[2], args[3])
    return emit_counts(builder, sig.args[0].literal_value, a, b, args[4])


def _dots(builder: Any, lengths: list[Any], totals: list[Any]) -> list[Any]:
    """Emit ``length - 2 * ones`` of each row."""
    one = ir.Constant(VECTOR, [1] * LANES)
    twice = [builder.shl(total, one) for total in totals]
    pairs = zip(lengths, twice, strict=True)
    return [builder.trunc(builder.sub(*pair), _DOTS) for pair in pairs]


def _emit_dots(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    totals = _emit_totals(context, builder, sig, args)
    return _dots(builder, [splat(builder, args[5], VECTOR)] * len(totals), totals)


def _numbers(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Emit each row's 8 numbers: arguments 5 to 7 are int64 numbers, rows' places, the panel."""
    word = ir.IntType(64)
    panel = builder.mul(args[7], word(LANES))
    numbers = pointer(context, builder, sig.args[5], args[5], panel)
    places = pointer(context, builder, sig.args[6], args[6], word(0))
    rows = range(sig.args[0].literal_value)
    starts = [builder.load(builder.gep(places, [word(i)])) for i in rows]
    return [load(builder, builder.gep(numbers, [start]), VECTOR, 8) for start in starts]


def _put(builder: Any, values: list[Any], base: Any, stride: Any) -> None:
    """Emit the stores of a value a row, ``stride`` elements apart."""
    for i, value in enumerate(values):
        row = builder.gep(base, [builder.mul(stride, ir.IntType(64)(i))])
        store(builder, value, row, 4 if value.type == _DOTS else 1)


def _flipped(builder: Any, reached: list[Any], flip: Any) -> list[Any]:
    """Emit each row's byte of 8 comparisons, xor ``flip``."""
    octet = ir.IntType(LANES)
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
        _put(builder, _emit_dots(context, builder, sig, args), base, args[8])
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
        reached = [builder.icmp_signed(">=", row, bound) for row in dots]
        _put(builder, _flipped(builder, reached, flip), base, args[11])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def bordered_dots_tile(
    typingctx, rows, alpha, beta, beta_at, words, lengths, places, panel, out, out_at, stride
):
    """As ``dots_tile``, with row i's k at ``lengths[places[i] + 8*panel + l]``, int64."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, alpha, beta, place, place, lengths, places, place, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = pointer(context, builder, sig.args[8], args[8], args[9])
        totals = _emit_totals(context, builder, sig, args)
        lengths = _numbers(context, builder, sig, args)
        _put(builder, _dots(builder, lengths, totals), base, args[10])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def bordered_bits_tile(
    typingctx, rows, alpha, beta, beta_at, words, most, places, panel, flips, out, out_at, stride
):
    """``out[out_at + i*stride]`` = the byte of ``(ones <= most) ^ flips`` of rows i.

    As ``bordered_dots_tile``: row i's greatest ones are at ``most[places[i] + 8*panel + l]``.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, alpha, beta, place, place, most, places, place, flips, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        flip = builder.load(pointer(context, builder, sig.args[8], args[8], args[7]))
        base = pointer(context, builder, sig.args[9], args[9], args[10])
        totals = _emit_totals(context, builder, sig, args)
        pairs = zip(totals, _numbers(context, builder, sig, args), strict=True)
        reached = [builder.icmp_signed("<=", *pair) for pair in pairs]
        _put(builder, _flipped(builder, reached, flip), base, args[11])
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def prefix_tile(typingctx, rows, words, at, offsets, count, alpha):
    """``alpha[t, i] = words[at + offsets[0] + i] ^ ... ^ words[at + offsets[t] + i]``, t < count.

    The last of them is repeated once; ``rows``, how many i there are, is a literal.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    signature = types.void(rows, words, types.intp, offsets, types.intp, alpha)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word, count = ir.IntType(64), sig.args[0].literal_value
        kind = ir.VectorType(word, count)
        source = pointer(context, builder, sig.args[1], args[1], args[2])
        offsets, alpha = (pointer(context, builder, sig.args[i], args[i], word(0)) for i in (3, 5))
        state = cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * count))
        with cgutils.for_range(builder, args[4]) as loop:
            offset = builder.load(builder.gep(offsets, [loop.index]))
            some = load(builder, builder.gep(source, [offset]), kind, 8)
            builder.store(builder.xor(builder.load(state), some), state)
            target = builder.gep(alpha, [builder.mul(loop.index, word(count))])
            store(builder, builder.load(state), target, 8)
        target = builder.gep(alpha, [builder.mul(args[4], word(count))])
        store(builder, builder.load(state), target, 8)
        return context.get_dummy_value()

    return signature, generate
