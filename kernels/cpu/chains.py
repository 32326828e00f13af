"""Rows as chained indices for bit-sliced counters, and the tables of rows that they look up.

Five bytes of a row and the xor of all bytes before, its chains' parity so far, are eight indices of
six bits: index i has bit i of each. ``kernels.cpu.slices`` says what for. The eight ends of the
chains, one byte, make two indices more (``_last``).
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.slices import (
    BYTES,
    LANES,
    ROWS,
    WORDS,
    add_bits,
    affine,
    as_kind,
    constant,
    keep,
    pick,
)
from kernels.cpu.vectors import load, pointer, splat, store

CHAINS, OCTETS = 8, 5  # indices of a step, and the bytes of a row that they take
_WORD = ir.IntType(64)
_SIX = np.arange(64, dtype=np.uint8)
_ONES = np.array([value.bit_count() for value in range(64)], dtype=np.uint8)
_TWOS = _ONES >> 1 & 1
INDEX = _SIX | _TWOS << 6 | 0x80  # six bits of a weight, as VGF2P8AFFINEQB takes them
_ROW = _SIX ^ 63 * (_ONES & 1) | 64 | _TWOS << 7  # those of an activation


def steps_for(octets: int) -> int:
    """Return by how many words ``chain`` replaces ``octets`` bytes of a row."""
    return -(-octets // OCTETS) + 1


def _rearrange(builder: Any, vector: Any, places: Any) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [int(place) for place in places])
    return builder.shuffle_vector(vector, ir.Constant(BYTES, ir.Undefined), mask)


_BYTE_OF, _WORD_OF = np.arange(LANES) % 8, np.arange(LANES) // 8


def _transpose(builder: Any, octets: Any) -> Any:
    """Return the words of a vector with byte i's bit j as byte j's bit i."""
    turned = _rearrange(builder, octets, 8 * _WORD_OF + 7 - _BYTE_OF)
    return affine(builder, constant(1 << _BYTE_OF), turned)


def _bits_of(builder: Any, octets: Any, first: int) -> tuple[Any, Any]:
    """Emit sum and carry of bits ``first`` to ``first + 2`` of ``k ^ x``, k a byte's place in 8."""
    three = []
    for j in range(3):
        bit = _rearrange(builder, octets, 8 * _WORD_OF + first + j)
        three.append(builder.xor(bit, constant(255 * (_BYTE_OF >> j & 1))))
    return add_bits(builder, *three)


def _all(word: int) -> ir.Constant:
    return ir.Constant(WORDS, [word] * ROWS)


@intrinsic
def chain_words(typingctx, turned, count, out, ends):
    """Write eight rows as words of five bytes and, from bit 40 on, the xor of those before.

    Args:
        turned: uint64 [W + 1, 8], the words of eight packed rows, the last ones 0.
        count: words to write.
        out: uint64 [count * 8].
        ends: uint64 [8], the xor of all bytes of each row.
    """
    signature = types.void(turned, types.intp, out, ends)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, target, ends = (
            pointer(context, builder, sig.args[i], args[i], _WORD(0)) for i in (0, 2, 3)
        )
        state = cgutils.alloca_once_value(builder, _all(0))
        with cgutils.for_range(builder, args[1]) as loop:
            bit = builder.mul(loop.index, _WORD(8 * OCTETS))
            shift = builder.and_(bit, _WORD(63))
            at = builder.shl(builder.lshr(bit, _WORD(6)), _WORD(3))
            low, high = (
                load(builder, builder.gep(source, [builder.add(at, _WORD(i))]), WORDS, 8)
                for i in (0, ROWS)
            )
            left = splat(builder, builder.sub(_WORD(63), shift), WORDS)
            upper = builder.shl(builder.shl(high, _all(1)), left)
            word = builder.or_(builder.lshr(low, splat(builder, shift, WORDS)), upper)
            five = builder.and_(word, _all((1 << 8 * OCTETS) - 1))
            old = builder.load(state)
            chained = builder.or_(five, builder.shl(old, _all(8 * OCTETS)))
            place = builder.gep(target, [builder.shl(loop.index, _WORD(3))])
            store(builder, chained, place, 8)
            fold = builder.xor(five, builder.lshr(five, _all(24)))
            pair = builder.xor(builder.lshr(fold, _all(8)), builder.lshr(fold, _all(16)))
            octet = builder.and_(builder.xor(fold, pair), _all(255))
            builder.store(builder.xor(old, octet), state)
        store(builder, builder.load(state), ends, 8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def prepare(typingctx, words, words_at, tables, tables_at, matrices):
    """Make the tables and matrices of 8 rows for the 8 indices of five bytes.

    Args:
        words: uint64 [8] from ``words_at`` on: row r's five bytes and their parity, ``chain``.
        tables: uint8 [8, 64], from ``tables_at`` on: bit r of byte i of table t is
            ``popc(i ^ index t of row r) >= 4``.
        matrices: uint8 [8, 8], from ``tables_at / 8`` on.
    """
    signature = types.void(words, types.intp, tables, types.intp, matrices)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        tables = pointer(context, builder, sig.args[2], args[2], args[3])
        eighth = builder.lshr(args[3], _WORD(3))
        matrices = pointer(context, builder, sig.args[4], args[4], eighth)
        by_row = _transpose(builder, load(builder, source, BYTES, 8))
        rows = pick(builder, constant(_ROW), by_row)
        lines = _rearrange(builder, rows, 8 * (7 - _BYTE_OF) + _WORD_OF)
        store(builder, lines, matrices, 8)
        by_index = _rearrange(builder, by_row, 8 * _BYTE_OF + _WORD_OF)
        bits = _transpose(builder, by_index)
        inner, outer = _bits_of(builder, bits, 0), _bits_of(builder, bits, 3)
        for t in range(CHAINS):
            ones, twos = (_rearrange(builder, as_kind(builder, x, BYTES), 8 * t + _BYTE_OF)
                          for x in inner)  # fmt: skip
            more, pairs = (_rearrange(builder, as_kind(builder, x, BYTES), 8 * t + _WORD_OF)
                           for x in outer)  # fmt: skip
            _, four = add_bits(builder, twos, pairs, builder.and_(ones, more))
            keep(builder, four, tables, t)
        return context.get_dummy_value()

    return signature, generate


@jit()
def _last(ends):
    """Return the eight ends of the chains as two indices, and the parity that is left of them.

    Six ends are index 0. Their parity and the other two ends are index 1.
    """
    word, odd, one = np.uint64(0), np.uint64(0), np.uint64(1)
    for j in range(6):
        end = ends >> np.uint64(j) & one
        word |= end << np.uint64(8 * j)
        odd ^= end
    word |= odd << one
    for j in (6, 7):
        end = ends >> np.uint64(j) & one
        word |= end << np.uint64(8 * j - 39)
        odd ^= end
    return word, odd


@jit()
def chain(words, row, some, out, turned):
    """Write eight rows as words of five bytes and the parity of those before.

    Args:
        words: uint64 [M, W], packed.
        row: the first of them.
        some: how many there are; zeros stand for the others.
        out: uint64 [s * 8]: word s of row r is ``8*s + r``.
        turned: uint64 [8 * (W + 2)], scratch.

    Returns:
        The parities of the rows in bits 0 to 7.
    """
    width, last = words.shape[1], out.size - ROWS
    turned[:] = 0
    for r in range(min(some, ROWS)):
        for t in range(width):
            turned[t * ROWS + r] = words[row + r, t]
    ends = turned[(width + 1) * ROWS :]
    chain_words(turned, last // ROWS, out, ends)
    odds = np.uint64(0)
    for r in range(ROWS):
        out[last + r], odd = _last(ends[r])
        odds |= odd << np.uint64(r)
    return np.uint8(odds)
