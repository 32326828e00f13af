"""Sums of four signed numbers looked up by their four signs: VPSHUFB, 32 sums an instruction.

``sum_k s_k q_k`` with ``s_k = ±1`` is cut into groups of four ``k``. A group has 16 sums, one a
pattern of signs: its table. The tables hold ``sum + 4 LEVELS`` as two digits of 7 bits, each in a
byte, so that one byte shuffle looks a digit up for 32 columns of signs, and two lookups still fit a
byte. For 8 ``k`` of 32 columns a digit takes two shuffles, an addition, a shift and two additions;
float32 takes 32 multiply-adds.

``q`` are integers within ±LEVELS: see ``kernels.cpu.signed`` for what is rounded to them.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import load, pointer, splat, store

GROUP, LANES = 4, 32  # numbers a table; columns a vector
TABLE_BYTES = 32  # 16 low digits, 16 high digits
LEVELS = 2047  # 8 LEVELS < 2^14
BLOCK = 128  # groups whose sums of digits fit 16 bits with room: 256 lookups of at most 127
_DIGIT = 7

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
        total = _all(_SHORTS, GROUP * LEVELS)
        for j in range(GROUP):
            index = builder.add(args[1], builder.mul(args[2], _WORD(j)))
            number = builder.load(pointer(context, builder, sig.args[0], args[0], index))
            signs = ir.Constant(_SHORTS, [1 if pattern >> j & 1 else -1 for pattern in range(16)])
            total = builder.add(total, builder.mul(splat(builder, number, _SHORTS), signs))
        half = ir.VectorType(_BYTE, 16)
        low = builder.trunc(builder.and_(total, _all(_SHORTS, (1 << _DIGIT) - 1)), half)
        high = builder.trunc(builder.lshr(total, _all(_SHORTS, _DIGIT)), half)
        order = ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES)))
        both = builder.shuffle_vector(low, high, order)
        store(builder, both, pointer(context, builder, sig.args[3], args[3], args[4]), 1)
        return context.get_dummy_value()

    return types.void(q, place, place, tables, place), generate


def _digits(builder: Any, table: Any, offset: int) -> Any:
    """Return a table's 16 digits at ``offset`` bytes, in both halves of a vector."""
    half = load(builder, builder.gep(table, [_WORD(offset)]), ir.VectorType(_BYTE, 16), 1)
    order = ir.Constant(ir.VectorType(_INT, LANES), [i % 16 for i in range(LANES)])
    return builder.shuffle_vector(half, half, order)


def _look_up(builder: Any, digits: Any, patterns: Any) -> Any:
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    return builder.call(shuffle, [digits, patterns])


class _Sums:
    """Sums of 32 columns' digits: of whole 16-bit lanes, and of the odd bytes alone."""

    def __init__(self, builder: Any) -> None:
        zero = _all(_SHORTS, 0)
        self.lanes = cgutils.alloca_once_value(builder, zero)
        self.odd = cgutils.alloca_once_value(builder, zero)

    def add(self, builder: Any, digits: Any) -> None:
        lanes = builder.bitcast(digits, _SHORTS)
        builder.store(builder.add(builder.load(self.lanes), lanes), self.lanes)
        odd = builder.lshr(lanes, _all(_SHORTS, 8))
        builder.store(builder.add(builder.load(self.odd), odd), self.odd)

    def columns(self, builder: Any) -> list[Any]:
        """Return the sums as four vectors of 8 columns, int32."""
        odd = builder.load(self.odd)
        even = builder.sub(builder.load(self.lanes), builder.shl(odd, _all(_SHORTS, 8)))
        parts = [builder.bitcast(part, _INTS) for part in (even, odd)]
        low = [builder.and_(part, _all(_INTS, 0xFFFF)) for part in parts]
        high = [builder.lshr(part, _all(_INTS, 16)) for part in parts]
        return [low[0], low[1], high[0], high[1]]


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
        sums = [[_Sums(builder) for _ in range(2)] for _ in range(count)]
        with cgutils.for_range(builder, args[7]) as loop:
            here = builder.gep(table, [builder.mul(loop.index, _WORD(TABLE_BYTES * (2 - two)))])
            first = [_digits(builder, here, half) for half in (0, 16)]
            second = first
            if not two:
                second = [_digits(builder, here, TABLE_BYTES + half) for half in (0, 16)]
            row = builder.gep(patterns, [builder.mul(loop.index, _WORD(2 * LANES))])
            for v in range(count):
                place = builder.gep(row, [builder.mul(args[6], _WORD(v))])
                a = load(builder, place, _BYTES, 1)
                b = load(builder, builder.gep(place, [_WORD(LANES)]), _BYTES, 1)
                for digit in range(2):
                    found = _look_up(builder, first[digit], a)
                    sums[v][digit].add(builder, builder.add(
                        found, _look_up(builder, second[digit], b)))  # fmt: skip
        lookups = builder.trunc(builder.mul(args[7], _WORD(2 * GROUP * LEVELS)), _INT)
        offset, scales = splat(builder, lookups, _INTS), splat(builder, args[8], _FLOATS)
        base = pointer(context, builder, sig.args[10], args[10], args[11])
        for v, (low, high) in enumerate(sums):
            pairs = zip(low.columns(builder), high.columns(builder), strict=True)
            for part, (units, upper) in enumerate(pairs):
                total = builder.add(units, builder.shl(upper, _all(_INTS, _DIGIT)))
                number = builder.sitofp(builder.sub(total, offset), _FLOATS)
                place = builder.gep(base, [_WORD(v * LANES + part * 8)])
                old = load(builder, place, _FLOATS, 4)
                old = builder.select(args[9], ir.Constant(_FLOATS, [0.0] * 8), old)
                store(builder, builder.fadd(builder.fmul(number, scales), old), place, 4)
        return context.get_dummy_value()

    return signature, generate


@jit()
def lookup(wide, planes, tables, t_at, index, i_at, gap, groups, scale, fresh, out, o_at):
    """:func:`_tile` over ``groups`` groups (an even number), of 64 columns if ``wide``, else 32."""
    if planes == 2:
        if wide:
            _tile(2, 2, tables, t_at, index, i_at, gap, groups, scale, fresh, out, o_at)
        else:
            _tile(1, 2, tables, t_at, index, i_at, gap, groups, scale, fresh, out, o_at)
    elif wide:
        _tile(2, 1, tables, t_at, index, i_at, gap, groups // 2, scale, fresh, out, o_at)
    else:
        _tile(1, 1, tables, t_at, index, i_at, gap, groups // 2, scale, fresh, out, o_at)
