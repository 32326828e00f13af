"""Ones of xored rows by look-ups and bit-sliced counters: processors with AVX-512 VBMI and GFNI.

Six bits of a row are an index: five of K and the parity of those before, in a chain. Of the ones
``c`` among the six xored bits a chain keeps the parity (the xor of the two rows' own parities), so
only ``h = c >> 1`` in 0..3 is counted, and the ones are ``2 * sum h`` plus the chain's last parity.
Both bits of ``h`` come for 64 outputs and 8 rows, a bit of a byte each, with one instruction:

- the upper, ``c >= 4``, from a table of 64 bytes by VPERMB;
- the lower, ``(c >> 1) & 1``, by VGF2P8AFFINEQB. It is, modulo 2, the sum e2 of the products of
  two of the six bits, and ``e2(x ^ w) = e2(x) ^ e2(w) ^ e1(x) e1(w) ^ <x, w>``, e1 the parity, is
  linear in w's six bits, ``e2(w)`` and 1, which fill the index's byte.

Full adders of two VPTERNLOGQ sum the bits up in slices: slice p holds bit p of every count. A
look-up and its adder are three instructions for 1280 products; xor, falls and popcount are five for
1024. On a Zen 4 core a tile gives 4.5 TOP/s from the L1 cache, where those give 2.8.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.octets import (
    BYTES,
    LANES,
    WORDS,
    add_bits,
    affine,
    as_kind,
    constant,
    keep,
    pick,
    ternary,
    words_at,
)
from kernels.cpu.vectors import load, pointer, splat, store

ROWS = 8  # of a tile: bits of a byte
RUN = 80  # indices that a tile counts at a time
_STEP = 4  # indices whose counts leave one bit of weight 16
KEPT = RUN // _STEP  # vectors of such bits
LEAST = 10  # slices of ones that a run writes
_LESS = 0x8E  # of a < b, or c where they are equal
_WORD = ir.IntType(64)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)


class _Low:
    """Slices 0 to 3 of the counts, in registers."""

    def __init__(self, builder: Any, slices: Any) -> None:
        self.builder = builder
        self.parts = [
            cgutils.alloca_once_value(builder, words_at(builder, slices, p)) for p in range(4)
        ]

    def add(self, p: int, *bits: Any) -> Any:
        """Add one or two vectors of weight 2^p to slice p; return the carries."""
        old = self.builder.load(self.parts[p])
        total, carry = add_bits(self.builder, old, *bits)
        self.builder.store(total, self.parts[p])
        return carry

    def keep(self, slices: Any) -> None:
        """Write the slices back."""
        for p, part in enumerate(self.parts):
            keep(self.builder, self.builder.load(part), slices, p)


def _look_up(builder: Any, sources: Any, at: Any) -> tuple[Any, Any]:
    """Emit the look-ups of an index: the lower and the upper bits of ``h``."""
    tables, matrices, places, indices = sources
    octets = as_kind(builder, words_at(builder, indices, at), BYTES)
    table = builder.load(builder.gep(places, [at]))
    word = load(builder, builder.gep(matrices, [builder.shl(table, _WORD(3))]), _WORD, 8)
    lower = affine(builder, octets, as_kind(builder, splat(builder, word, WORDS), BYTES))
    return lower, pick(builder, as_kind(builder, words_at(builder, tables, table), BYTES), octets)


def _count_step(builder: Any, low: _Low, sources: Any, step: Any) -> Any:
    """Emit the look-ups and adders of four indices; return bits of weight 16."""
    first, pairs = builder.shl(step, _WORD(2)), []
    for i in (0, 2):
        a, b = (_look_up(builder, sources, builder.add(first, _WORD(i + j))) for j in (0, 1))
        pairs.append((low.add(0, a[0], b[0]), low.add(1, a[1], b[1])))
    (twos, fours), (more_twos, more_fours) = pairs
    fours_of_twos = low.add(1, twos, more_twos)
    return low.add(3, low.add(2, fours, more_fours), low.add(2, fours_of_twos))


def _settle(builder: Any, slices: Any, count: Any, carries: list[Any]) -> None:
    """Add vectors of weight 16 to slices from 4 on, what they leave one slice after another."""
    p = 4
    while len(carries) > 1:
        total, left = words_at(builder, slices, p), []
        for i in range(0, len(carries), 2):
            total, carry = add_bits(builder, total, *carries[i : i + 2])
            left.append(carry)
        keep(builder, total, slices, p)
        carries, p = left, p + 1
    carry = cgutils.alloca_once_value(builder, carries[0])
    with cgutils.for_range(builder, builder.sub(count, _WORD(p))) as loop:
        place = builder.add(loop.index, _WORD(p))
        total, more = add_bits(builder, words_at(builder, slices, place), builder.load(carry))
        keep(builder, total, slices, place)
        builder.store(more, carry)


@intrinsic
def count_tile(
    typingctx, tables, at, matrices, places, first, indices, indices_at, steps, kept, slices,
    slices_at, count,
):  # fmt: skip
    """Add ``h`` of 8 rows and 64 outputs over ``4 * steps`` indices to slices of the ones.

    Args:
        tables, matrices: uint8 [t, 64] and [t, 8], as ``prepare`` leaves them.
        at, places: index i meets table ``at + places[first + i]``, int64.
        indices: uint8 [i, 64] from ``indices_at`` on.
        steps: at most KEPT.
        kept: uint8 [KEPT * 64], scratch, zeros from ``64 * steps`` on.
        slices: uint8 [count, 64] from ``slices_at`` on: bit r of byte n of slice p is bit p of
            the ones of row r and output n.
        count: slices, at least LEAST and enough for the ones.
    """
    place = types.intp
    signature = types.void(
        tables, place, matrices, places, place, indices, place, place, kept, slices, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sources = [
            pointer(context, builder, sig.args[i], args[i], index)
            for i, index in (
                (0, builder.shl(args[1], _WORD(6))),
                (2, builder.shl(args[1], _WORD(3))),
                (3, args[4]),
                (5, args[6]),
            )
        ]
        kept = pointer(context, builder, sig.args[8], args[8], _WORD(0))
        ones = pointer(context, builder, sig.args[9], args[9], args[10])
        slices = builder.gep(ones, [_WORD(LANES)])  # slice 0 is the parity
        low = _Low(builder, slices)
        with cgutils.for_range(builder, args[7]) as loop:
            keep(builder, _count_step(builder, low, sources, loop.index), kept, loop.index)
        low.keep(slices)
        carries = [words_at(builder, kept, i) for i in range(KEPT)]
        _settle(builder, slices, builder.sub(args[11], _WORD(1)), carries)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def start_tile(
    typingctx, chains, odds, at, places, parities, parities_at, slices, slices_at, count
):
    """Write what the ends of chains, whose number is a literal, add to the ones of a tile.

    Args:
        odds: uint8, bit r: the parity that a chain of row r ends with; chain i has
            ``odds[at + places[i]]``.
        parities: uint8 [chains, 64] from ``parities_at`` on: 255 where those of an output are odd.
        slices, slices_at, count: as ``count_tile`` has them.
    """
    if not isinstance(chains, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(chains, odds, place, places, parities, place, slices, place, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        odds, places, parities, slices = (
            pointer(context, builder, sig.args[i], args[i], index)
            for i, index in ((1, args[2]), (3, _WORD(0)), (4, args[5]), (6, args[7]))
        )
        bits, p = [], 0
        for i in range(sig.args[0].literal_value):
            odd = builder.load(builder.gep(odds, [builder.load(builder.gep(places, [_WORD(i)]))]))
            rows = as_kind(builder, splat(builder, odd, BYTES), WORDS)
            bits.append(builder.xor(rows, words_at(builder, parities, i)))
        while bits:
            carries: list[Any] = []
            while len(bits) > 1:
                total, carry = add_bits(builder, *bits[:3])
                bits, carries = [*bits[3:], total], [*carries, carry]
            keep(builder, bits[0], slices, p)
            bits, p = carries, p + 1
        with cgutils.for_range(builder, builder.sub(args[8], _WORD(p))) as loop:
            zeros = ir.Constant(WORDS, [0] * ROWS)
            keep(builder, zeros, slices, builder.add(loop.index, _WORD(p)))
        return context.get_dummy_value()

    return signature, generate


def _swap(builder: Any, planes: list[Any]) -> list[Any]:
    """Return eight vectors with bit i of vector j as bit j of vector i: a transposed 8 x 8."""
    for apart, mask in ((4, 0x0F), (2, 0x33), (1, 0x55)):
        low, high, shift = (constant([x] * LANES) for x in (mask, 255 - mask, apart))
        turned = list(planes)
        for i in range(8):
            if not i & apart:
                a, b = planes[i], planes[i + apart]
                up, down = builder.shl(b, shift), builder.lshr(a, shift)
                turned[i] = builder.or_(builder.and_(a, low), builder.and_(up, high))
                turned[i + apart] = builder.or_(builder.and_(down, low), builder.and_(b, high))
        planes = turned
    return planes


@intrinsic
def read_counts(typingctx, slices, at, count, sums):
    """``sums[64*r + n]`` = the ones of 8 rows and 64 outputs, uint16.

    Args:
        slices: uint8; slice p of these outputs lies at ``at + 64*p``.
        count: slices, at most 16.
        sums: uint16 [8 * 64].
    """
    signature = types.void(slices, types.intp, types.intp, sums)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[3], args[3], _WORD(0))
        planes = [cgutils.alloca_once_value(builder, constant([0] * LANES)) for _ in range(16)]
        for p, plane in enumerate(planes):
            with builder.if_then(builder.icmp_signed("<", _WORD(p), args[2])):
                slice_p = load(builder, builder.gep(source, [_WORD(LANES * p)]), BYTES, 8)
                builder.store(slice_p, plane)
        bits = [builder.load(plane) for plane in planes]
        low, high = _swap(builder, bits[:8]), _swap(builder, bits[8:])
        for r in range(ROWS):
            upper = builder.shl(builder.zext(high[r], _SHORTS), ir.Constant(_SHORTS, [8] * LANES))
            counts = builder.or_(builder.zext(low[r], _SHORTS), upper)
            store(builder, counts, builder.gep(target, [_WORD(LANES * r)]), 2)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def reached_words(typingctx, slices, at, count, limits, limits_at, words):
    """``words[r]`` = the 64 bits ``ones <= limit`` of row r, uint64 [8].

    As ``read_counts``; ``limits``, uint8 [count + 1, 64] from ``limits_at`` on, have bit r for row
    r: whether there is a limit at all, then its bits from the lowest on.
    """
    place = types.intp
    signature = types.void(slices, place, place, limits, place, words)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, limit = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 3)
        )
        target = pointer(context, builder, sig.args[5], args[5], _WORD(0))
        found = cgutils.alloca_once_value(builder, words_at(builder, limit, 0))
        with cgutils.for_range(builder, args[2]) as loop:
            bound = words_at(builder, limit, builder.add(loop.index, _WORD(1)))
            slice_p = words_at(builder, source, loop.index)
            reached = ternary(builder, _LESS, slice_p, bound, builder.load(found))
            builder.store(reached, found)
        octets = as_kind(builder, builder.load(found), BYTES)
        for r in range(ROWS):
            bits = builder.and_(octets, constant([1 << r] * LANES))
            word = builder.bitcast(builder.icmp_signed("!=", bits, constant([0] * LANES)), _WORD)
            builder.store(word, builder.gep(target, [_WORD(r)]))
        return context.get_dummy_value()

    return signature, generate
