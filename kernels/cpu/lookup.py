"""Sums of four signed numbers looked up by their four signs: VPSHUFB, 32 sums an instruction.

``sum_k s_k q_k`` with ``s_k = ±1`` is cut into groups of four ``k``. A group has 16 sums, one a
pattern of signs: its table. The tables hold ``sum + 2^13`` as two digits of 7 bits, each in a
byte, so that one byte shuffle looks a digit up for 32 columns of signs, and two lookups still fit a
byte. For 8 ``k`` of 32 columns a digit takes two shuffles, an addition, a shift and two additions;
float32 takes 32 multiply-adds.

``q`` are integers within ±LEVELS: see ``kernels.cpu.signed`` for what is rounded to them.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import load, pointer, splat, store

GROUP, LANES = 4, 32  # numbers a table; columns a vector
TABLE_BYTES = 32  # 16 low digits, 16 high digits
ROWS = 1  # of results a tile
STEP = (0, 2 * GROUP, GROUP)  # numbers of two look-ups, by the planes of signs
TABLES = (0, 2 * TABLE_BYTES, TABLE_BYTES)  # bytes a step and row
PATTERNS = (0, 2 * LANES, 2 * LANES)  # bytes a step and 32 columns
LEVELS = 2047
BLOCK = 128  # groups whose sums of digits fit 16 bits with room: 256 lookups of at most 127
DIGIT, OFFSET = 7, 1 << 13  # bits; at least 4 LEVELS, so that no sum is negative

_BYTE, _SHORT, _INT, _WORD = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES = ir.VectorType(_BYTE, LANES)
_SHORTS = ir.VectorType(_SHORT, LANES // 2)
_INTS = ir.VectorType(_INT, LANES // 4)
_FLOATS = ir.VectorType(ir.FloatType(), LANES // 4)


def _all(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


@intrinsic
def store_table(typingctx, q, at, step, tables, to):
    """Write the table of ``q[at + j * step]``, j = 0..3, int16, to ``tables[to:to + 32]``."""
    place = types.intp

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = _all(_SHORTS, OFFSET)
        for j in range(GROUP):
            index = builder.add(args[1], builder.mul(args[2], _WORD(j)))
            number = builder.load(pointer(context, builder, sig.args[0], args[0], index))
            signs = ir.Constant(_SHORTS, [1 if pattern >> j & 1 else -1 for pattern in range(16)])
            total = builder.add(total, builder.mul(splat(builder, number, _SHORTS), signs))
        half = ir.VectorType(_BYTE, 16)
        low = builder.trunc(builder.and_(total, _all(_SHORTS, (1 << DIGIT) - 1)), half)
        high = builder.trunc(builder.lshr(total, _all(_SHORTS, DIGIT)), half)
        order = ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES)))
        both = builder.shuffle_vector(low, high, order)
        store(builder, both, pointer(context, builder, sig.args[3], args[3], args[4]), 1)
        return context.get_dummy_value()

    return types.void(q, place, place, tables, place), generate


def digits_at(builder: Any, table: Any, offset: int) -> Any:
    """Return a table's 16 digits at ``offset`` bytes, in both halves of a vector."""
    half = load(builder, builder.gep(table, [_WORD(offset)]), ir.VectorType(_BYTE, 16), 1)
    order = ir.Constant(ir.VectorType(_INT, LANES), [i % 16 for i in range(LANES)])
    return builder.shuffle_vector(half, half, order)


def look_up(builder: Any, digits: Any, patterns: Any) -> Any:
    """Return the digits of 32 patterns, a byte each."""
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    return builder.call(shuffle, [digits, patterns])


class Sums:
    """Sums of 32 columns' digits: of whole 16-bit lanes, and of the odd bytes alone.

    They begin with ``start``, int16, for each column.
    """

    def __init__(self, builder: Any, start: Any = None) -> None:
        start = _SHORT(0) if start is None else start
        odd, lanes = start, builder.mul(start, _SHORT(257))
        self.lanes = cgutils.alloca_once_value(builder, splat(builder, lanes, _SHORTS))
        self.odd = cgutils.alloca_once_value(builder, splat(builder, odd, _SHORTS))

    def add(self, builder: Any, digits: Any) -> None:
        """Add a digit of each column, a byte each."""
        lanes = builder.bitcast(digits, _SHORTS)
        builder.store(builder.add(builder.load(self.lanes), lanes), self.lanes)
        odd = builder.lshr(lanes, _all(_SHORTS, 8))
        builder.store(builder.add(builder.load(self.odd), odd), self.odd)

    def halves(self, builder: Any) -> tuple[Any, Any]:
        """Return the sums of the even and of the odd columns, int16."""
        odd = builder.load(self.odd)
        return builder.sub(builder.load(self.lanes), builder.shl(odd, _all(_SHORTS, 8))), odd


def start_sums(builder: Any, pairs: Any) -> tuple[Sums, Sums]:
    """Return a vector's sums of low and high digits for ``pairs`` steps of two lookups.

    High digits begin at what the tables' offset will add up to.
    """
    taken = builder.mul(builder.trunc(pairs, _SHORT), _SHORT(-2 * (OFFSET >> DIGIT)))
    return Sums(builder), Sums(builder, taken)


def _totals(builder: Any, low: Sums, high: Sums) -> list[Any]:
    """Return ``low + 2^7 high`` of 32 columns as four vectors of 8, float32."""
    kind = ir.FunctionType(_INTS, [_SHORTS, _SHORTS])
    join = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pmadd.wd")
    digits = ir.Constant(_SHORTS, [1, 1 << DIGIT] * (_SHORTS.count // 2))
    halves = list(zip(low.halves(builder), high.halves(builder), strict=True))
    found = []
    for upper in (False, True):  # the lower and the upper 16 bits of the lanes of 32
        for part in halves:
            units, above = (builder.bitcast(digit, _INTS) for digit in part)
            if upper:
                units = builder.lshr(units, _all(_INTS, 16))
                above = builder.and_(above, _all(_INTS, -1 << 16))
            else:
                units = builder.and_(units, _all(_INTS, 0xFFFF))
                above = builder.shl(above, _all(_INTS, 16))
            both = builder.bitcast(builder.or_(units, above), _SHORTS)
            found.append(builder.sitofp(builder.call(join, [both, digits]), _FLOATS))
    return found


def put_columns(
    builder: Any, sums: list[tuple[Sums, Sums]], scale: Any, fresh: Any, base: Any
) -> None:
    """Emit ``base[c] = scale * sums[c]``, added to what is there unless ``fresh``."""
    scales = splat(builder, scale, _FLOATS)
    for v, digits in enumerate(sums):
        for part, number in enumerate(_totals(builder, *digits)):
            place = builder.gep(base, [_WORD(v * LANES + part * 8)])
            old = load(builder, place, _FLOATS, 4)
            old = builder.select(fresh, ir.Constant(_FLOATS, [0.0] * 8), old)
            store(builder, builder.fadd(builder.fmul(number, scales), old), place, 4)


@intrinsic(prefer_literal=True)
def _tile(
    typingctx, vectors, planes, tables, t_at, index, i_at, gap, pairs, scale, fresh, out, o_at
):
    """``out[o_at + c] = scale * sum_g table_g[pattern_g[c]]``, added to ``out`` unless ``fresh``.

    A step is two lookups. With one plane of patterns they are those of two groups beside each
    other; with two planes both are of one group, patterns of the first plane beside those of the
    second: the sum is then over both.

    Args:
        vectors: literal 1 or 2: 32 columns each.
        planes: literal 1 or 2.
        tables: uint8; ``t_at`` is where those of the first group begin.
        index: patterns, uint8; 32 of a group (and plane) after the other from ``i_at`` on.
        gap: bytes from the first vector's patterns to the second's.
        pairs: number of steps.
        scale: float32.
        out: float32.
    """
    if not all(isinstance(kind, types.IntegerLiteral) for kind in (vectors, planes)):
        return None
    at = types.intp
    signature = types.void(
        vectors, planes, tables, at, index, at, at, at, types.float32, types.boolean, out, at
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count, two = sig.args[0].literal_value, sig.args[1].literal_value == 2
        table = pointer(context, builder, sig.args[2], args[2], args[3])
        patterns = pointer(context, builder, sig.args[4], args[4], args[5])
        sums = [start_sums(builder, args[7]) for _ in range(count)]
        with cgutils.for_range(builder, args[7]) as loop:
            here = builder.gep(table, [builder.mul(loop.index, _WORD(TABLE_BYTES * (2 - two)))])
            first = [digits_at(builder, here, half) for half in (0, 16)]
            second = first
            if not two:
                second = [digits_at(builder, here, TABLE_BYTES + half) for half in (0, 16)]
            row = builder.gep(patterns, [builder.mul(loop.index, _WORD(2 * LANES))])
            for v in range(count):
                place = builder.gep(row, [builder.mul(args[6], _WORD(v))])
                a = load(builder, place, _BYTES, 1)
                b = load(builder, builder.gep(place, [_WORD(LANES)]), _BYTES, 1)
                for digit in range(2):
                    found = look_up(builder, first[digit], a)
                    sums[v][digit].add(builder, builder.add(
                        found, look_up(builder, second[digit], b)))  # fmt: skip
        base = pointer(context, builder, sig.args[10], args[10], args[11])
        put_columns(builder, sums, args[8], args[9], base)
        return context.get_dummy_value()

    return signature, generate


@jit()
def _row(wide, planes, tables, t_at, index, i_at, gap, steps, scale, fresh, out, o_at):
    if planes == 2:
        if wide:
            _tile(2, 2, tables, t_at, index, i_at, gap, steps, scale, fresh, out, o_at)
        else:
            _tile(1, 2, tables, t_at, index, i_at, gap, steps, scale, fresh, out, o_at)
    elif wide:
        _tile(2, 1, tables, t_at, index, i_at, gap, steps, scale, fresh, out, o_at)
    else:
        _tile(1, 1, tables, t_at, index, i_at, gap, steps, scale, fresh, out, o_at)


@jit()
def lookup(
    rows, wide, planes, tables, t_at, t_gap, index, i_at, i_gap, steps, scales, s_at, s_gap,
    fresh, out, o_at, o_gap,
):  # fmt: skip
    """``out[r, c] = scale[r] * sum_k (number k of row r) * (sign k of column c)``.

    Of ``rows`` rows and, if ``wide``, 64 columns, else 32; over both planes; added to ``out``
    unless ``fresh``. The number of elements from a row's tables, scale and result to the next
    row's are ``t_gap``, ``s_gap`` and ``o_gap``, from a vector's patterns to the next's ``i_gap``.
    """
    for r in range(rows):
        t, scale, to = t_at + r * t_gap, scales[s_at + r * s_gap], o_at + r * o_gap
        _row(wide, planes, tables, t, index, i_at, i_gap, steps, scale, fresh, out, to)


@jit()
def store_step(planes, q, first, stride, tables, to):
    """Write a step's tables, of ``q[first + j * stride]``, int16, from ``tables[to]`` on."""
    store_table(q, first, stride, tables, to)
    if planes == 1:
        store_table(q, first + GROUP * stride, stride, tables, to + TABLE_BYTES)


@jit()
def add_signs(word, j, planes, plane, out, at):
    """Add the signs of number j of a step, a bit a column, to patterns that began as zeros.

    ``out`` is uint32; the step's patterns begin at ``out[at]``. Column 8 ``q + lane`` is byte q of
    a lane: so lie the columns in the sums that :func:`_totals` splits into four vectors of 8.
    """
    group = j // GROUP if planes == 1 else plane
    place = at + group * (LANES // 4)
    for lane in range(LANES // 4):
        bits = (word >> np.uint32(lane)) & np.uint32(0x01010101)
        out[place + lane] |= bits << np.uint32(j % GROUP)
