"""Rows as chained indices for bit-sliced counters, and the tables of rows that they look up.

40 bits of a row, as five bytes, are eight indices of six bits: index i has bit i of each and the
parity of all bits before it in the row. ``kernels.cpu.slices`` says what for. A row's last word may
be of fewer indices: with ``last`` of them, byte j takes bits ``j * last`` to ``(j + 1) * last``.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.octets import BYTES, LANES, WORDS, affine, as_kind, constant, keep, pick
from kernels.cpu.slices import ROWS
from kernels.cpu.vectors import load, pointer, splat, store

INDICES, FIVE = 8, 5  # indices of a word, and the bytes of a row that they take
_WORD = ir.IntType(64)
_SIX = np.arange(64, dtype=np.uint8)
_ONES = np.array([value.bit_count() for value in range(64)], dtype=np.uint8)
_TWOS = _ONES >> 1 & 1
_INDEX = _SIX | _TWOS << 6 | 0x80  # six bits of a weight, as VGF2P8AFFINEQB takes them
_ROW = _SIX ^ 63 * (_ONES & 1) | 64 | _TWOS << 7  # those of an activation
# Bit k of number y: whether y has four ones or more if its lower three bits are xored with k.
_FOURS = (_ONES[_SIX[:, None] ^ _SIX[:8]] >= 4) @ (1 << np.arange(8))


def indices_for(bits: int) -> int:
    """Return how many indices hold ``bits`` bits of a row."""
    return -(-bits // FIVE)


def _rearrange(builder: Any, vector: Any, places: Any) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [int(place) for place in places])
    return builder.shuffle_vector(vector, ir.Constant(BYTES, ir.Undefined), mask)


_BYTE_OF, _WORD_OF = np.arange(LANES) % 8, np.arange(LANES) // 8


def _transpose(builder: Any, octets: Any) -> Any:
    """Return the words of a vector with byte i's bit j as byte j's bit i."""
    turned = _rearrange(builder, octets, 8 * _WORD_OF + 7 - _BYTE_OF)
    return affine(builder, constant(1 << _BYTE_OF), turned)


def _all(word: int) -> ir.Constant:
    return ir.Constant(WORDS, [word] * ROWS)


def _parities(builder: Any, octets: Any, masks: list[int]) -> Any:
    """Return bytes whose bit i is the parity of ``octet & masks[i]``, as words."""
    return as_kind(builder, affine(builder, octets, constant(masks[::-1] * ROWS)), WORDS)


def _bits_at(builder: Any, source: Any, stride: Any, bit: Any) -> Any:
    """Return 64 bits of eight rows from ``bit`` on."""
    shift = builder.and_(bit, _WORD(63))
    at = builder.gep(source, [builder.mul(builder.lshr(bit, _WORD(6)), stride)])
    low, high = (load(builder, place, WORDS, 8) for place in (at, builder.gep(at, [stride])))
    left = splat(builder, builder.sub(_WORD(63), shift), WORDS)
    upper = builder.shl(builder.shl(high, _all(1)), left)
    return builder.or_(builder.lshr(low, splat(builder, shift, WORDS)), upper)


def _spread(builder: Any, word: Any, last: Any, mask: Any) -> Any:
    """Return words whose byte j is ``last`` bits of ``word`` from ``j * last`` on."""
    found = _all(0)
    for j in range(FIVE):
        by = splat(builder, builder.mul(last, _WORD(j)), WORDS)
        octet = builder.and_(builder.lshr(word, by), mask)
        found = builder.or_(found, builder.shl(octet, _all(8 * j)))
    return found


@intrinsic
def chain_words(typingctx, rows, at, stride, count, last, out):
    """Write eight rows as words of indices; return the parities of the rows, bit r of a byte.

    Args:
        rows: uint64, word t of row r at ``at + stride * t + r``, the last ones 0.
        count: words to write.
        last: indices of the last of them, 1 to 8; the others are 0.
        out: uint64 [count * 8]: word s of row r is ``8*s + r``.
    """
    place = types.intp
    signature = types.uint8(rows, place, place, place, place, out)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[5], args[5], _WORD(0))
        stride, count, last = args[2:5]
        mask = splat(builder, builder.sub(builder.shl(_WORD(1), last), _WORD(1)), WORDS)
        state = cgutils.alloca_once_value(builder, _all(0))
        five = cgutils.alloca_once(builder, WORDS)
        with cgutils.for_range(builder, count) as loop:
            bit = builder.mul(loop.index, _WORD(8 * FIVE))
            word = _bits_at(builder, source, stride, bit)
            builder.store(builder.and_(word, _all((1 << 8 * FIVE) - 1)), five)
            end = builder.icmp_signed("==", builder.add(loop.index, _WORD(1)), count)
            with builder.if_then(end):
                builder.store(_spread(builder, word, last, mask), five)
            word, old = builder.load(five), builder.load(state)
            fold = builder.xor(word, builder.lshr(word, _all(24)))
            pair = builder.xor(builder.lshr(fold, _all(8)), builder.lshr(fold, _all(16)))
            octets = as_kind(builder, builder.xor(fold, pair), BYTES)  # the first of each word
            before = _parities(builder, octets, [(1 << i) - 1 for i in range(INDICES)])
            there = builder.select(end, mask, _all(255))
            parities = builder.and_(builder.xor(before, old), there)
            chained = builder.or_(word, builder.shl(parities, _all(8 * FIVE)))
            place = builder.gep(target, [builder.shl(loop.index, _WORD(3))])
            store(builder, chained, place, 8)
            builder.store(builder.xor(old, _parities(builder, octets, [255] * INDICES)), state)
        odd = builder.and_(builder.load(state), _all(1))
        return builder.bitcast(builder.icmp_signed("!=", odd, _all(0)), ir.IntType(8))

    return signature, generate


@intrinsic
def prepare(typingctx, words, words_at, tables, at, matrices):
    """Make the tables and matrices of 8 rows for the 8 indices of a word.

    Args:
        words: uint64 [8] from ``words_at`` on: a word of each row, ``chain_words``.
        tables: uint8 [t, 64], from table ``at`` on: bit r of byte i of table t is
            ``popc(i ^ index t of row r) >= 4``.
        matrices: uint8 [t, 8], the same.
    """
    signature = types.void(words, types.intp, tables, types.intp, matrices)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        places = builder.shl(args[3], _WORD(6)), builder.shl(args[3], _WORD(3))
        tables, matrices = (
            pointer(context, builder, sig.args[i], args[i], place)
            for i, place in zip((2, 4), places, strict=True)
        )
        by_row = _transpose(builder, load(builder, source, BYTES, 8))
        # Byte 7 - r of word t, as VGF2P8AFFINEQB takes rows of bits.
        by_index = _rearrange(builder, by_row, 8 * (7 - _BYTE_OF) + _WORD_OF)
        store(builder, pick(builder, constant(_ROW), by_index), matrices, 8)
        for t in range(INDICES):
            rows = _rearrange(builder, by_index, 8 * t + _BYTE_OF)
            eighths = builder.xor(rows, constant(_WORD_OF << 3))
            bits = pick(builder, constant(_FOURS), eighths)
            keep(builder, affine(builder, constant(1 << _BYTE_OF), bits), tables, t)
        return context.get_dummy_value()

    return signature, generate


@jit()
def _turned(word):
    """Return ``word`` with byte i's bit j as byte j's bit i."""
    for by, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        moved = (word ^ word >> np.uint64(by)) & np.uint64(mask)
        word ^= moved ^ moved << np.uint64(by)
    return word


@jit()
def _lay(words, last, octets, found, odd):
    steps, width = (found.shape[1] + INDICES - 1) // INDICES, words.shape[1]
    rows, chained = np.zeros((width + 1) * ROWS, np.uint64), np.empty(steps * ROWS, np.uint64)
    for n in range(0, len(words), ROWS):
        panel, lane, some = n // LANES, n % LANES, min(ROWS, len(words) - n)
        for r in range(some):
            for t in range(width):
                rows[t * ROWS + r] = words[n + r, t]
        parities = chain_words(rows, 0, ROWS, steps, last, chained)
        for r in range(some):
            odd[panel, lane + r] = 255 * (parities >> r & 1)
        for s in range(steps):
            for r in range(some):
                six = _turned(chained[s * ROWS + r])
                for i in range(INDICES if s + 1 < steps else last):
                    found[panel, s * INDICES + i, lane + r] = octets[six & np.uint64(63)]
                    six >>= np.uint64(INDICES)


def index(words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return packed rows (int64 [N, W]) as ``count`` indices each, as weights.

    Returns:
        uint8 [ceil(N/64), count, 64], and uint8 [ceil(N/64), 64], 255 where a row is odd; rows of
        zeros beyond N.
    """
    panels, last = -(-len(words) // LANES), (count - 1) % INDICES + 1
    found = np.full((panels, count, LANES), _INDEX[0], dtype=np.uint8)
    odd = np.zeros((panels, LANES), dtype=np.uint8)
    _lay(words.view(np.uint64), last, _INDEX, found, odd)
    return found, odd
