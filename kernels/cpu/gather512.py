"""Looked-up sums whose signs lie anywhere, as ``kernels.cpu.gather`` makes them, in AVX-512.

A row of signs is of 128 columns, two rows of 64 beside each other. VPERMB takes the lower six bits
of an index: a table of 16 that is repeated four times needs no masks for nibbles. For 8 numbers and
128 columns that is 30 instructions besides loads, where two tiles of AVX2 take 100 half as long. A
Zen 4 core does 46 products a clock with lists of 128 and 33 with lists of 32, AVX2 41 and 30.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.lookup import DIGIT, GROUP, OFFSET, TABLE_BYTES
from kernels.cpu.vectors import load, pointer, splat, store

ROW = 64  # bytes of a row of signs
_SHORT, _WORD = ir.IntType(16), ir.IntType(64)
_BYTES, _SHORTS, _INTS, _FLOATS = (
    ir.VectorType(kind, ROW * 8 // bits)
    for kind, bits in (
        (ir.IntType(8), 8), (_SHORT, 16), (ir.IntType(32), 32), (ir.FloatType(), 32),
    )
)  # fmt: skip


def _all(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _shuffled(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    )


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    function = ir.FunctionType(kind, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _patterns(builder: Any, source: Any, rows: Any, group: Any, ready: bool) -> list[Any]:
    """Return a group's patterns, in the lower nibbles and in the upper ones moved there."""
    found = []
    for i in range(GROUP):
        index = builder.add(builder.mul(group, _WORD(GROUP)), _WORD(i))
        offset = builder.zext(builder.load(builder.gep(rows, [index])), _WORD)
        place = builder.gep(builder.gep(source, [offset]), [_WORD(i * ROW if ready else 0)])
        row = builder.bitcast(load(builder, place, _BYTES, 1), _SHORTS)
        found.append(row if ready or i == 0 else builder.shl(row, _all(_SHORTS, i)))
    both = builder.or_(builder.or_(builder.or_(*found[:2]), found[2]), found[3])
    return [builder.bitcast(p, _BYTES) for p in (both, builder.lshr(both, _all(_SHORTS, GROUP)))]


def _digits(builder: Any, table: Any, offset: int) -> Any:
    half = load(builder, builder.gep(table, [_WORD(offset)]), ir.VectorType(_BYTES.element, 16), 1)
    return _shuffled(builder, half, half, [i % 16 for i in range(ROW)])


def _add(builder: Any, sums: list[Any], digits: Any) -> None:
    """Add a digit of each column to sums of whole 16-bit lanes and of the odd bytes alone."""
    lanes = builder.bitcast(digits, _SHORTS)
    for kept, more in zip(sums, (lanes, builder.lshr(lanes, _all(_SHORTS, 8))), strict=True):
        builder.store(builder.add(builder.load(kept), more), kept)


def _totals(builder: Any, low: list[Any], high: list[Any]) -> list[Any]:
    """Return ``low + 2^7 high``, float32: four vectors, of every fourth byte each."""
    halves = []
    for kept in (low, high):
        lanes, odd = (builder.load(part) for part in kept)
        halves.append((builder.sub(lanes, builder.shl(odd, _all(_SHORTS, 8))), odd))
    digits = ir.Constant(_SHORTS, [1, 1 << DIGIT] * (_SHORTS.count // 2))
    found = []
    for upper in (0, 1):  # the lower and the upper 16 bits of the lanes of 32
        for units, above in zip(*halves, strict=True):
            order = [i // 2 * 2 + upper + i % 2 * _SHORTS.count for i in range(_SHORTS.count)]
            both = _shuffled(builder, units, above, order)
            total = _call(builder, "llvm.x86.avx512.pmaddw.d.512", _INTS, [both, digits])
            found.append(builder.sitofp(total, _FLOATS))
    return found


def _put(builder: Any, parts: list[Any], scale: Any, fresh: Any, base: Any) -> None:
    """Put 32 columns, eight a part, of each of the two rows of 64 that lie beside each other."""
    for i in (0, 2):
        for row in (0, 1):
            order = [8 * row + j % 8 + 16 * (j // 8) for j in range(16)]
            number = builder.fmul(_shuffled(builder, parts[i], parts[i + 1], order), scale)
            place = builder.gep(base, [_WORD(ROW * row + 8 * i)])
            old = load(builder, place, _FLOATS, 4)
            old = builder.select(fresh, _all(_FLOATS, 0.0), old)
            store(builder, builder.fadd(number, old), place, 4)


@intrinsic(prefer_literal=True)
def wide_tile(
    typingctx, ready, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at
):
    """``gather.gather_tile`` of 128 columns; places are of ROW bytes, or of four such rows."""
    if not isinstance(ready, types.IntegerLiteral):
        return None
    at = types.intp
    signature = types.void(
        ready, tables, at, rows, at, signs, at, at, types.float32, types.boolean, out, at
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        table, row, source, base = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (1, 3, 5, 10)
        )
        taken = builder.mul(builder.trunc(args[7], _SHORT), _SHORT(-2 * (OFFSET >> DIGIT)))
        zero = _SHORT(0)
        starts = ((zero, zero), (builder.mul(taken, _SHORT(257)), taken))
        sums = [
            [
                [cgutils.alloca_once_value(builder, splat(builder, one, _SHORTS)) for one in pair]
                for pair in starts
            ]
            for _ in (0, 1)
        ]
        with cgutils.for_range(builder, args[7]) as loop:
            here = builder.gep(table, [builder.mul(loop.index, _WORD(2 * TABLE_BYTES))])
            first = builder.mul(loop.index, _WORD(2))
            groups = [
                _patterns(
                    builder, source, row, builder.add(first, _WORD(g)),
                    sig.args[0].literal_value == 1,
                )
                for g in (0, 1)
            ]  # fmt: skip
            for digit in (0, 1):
                digits = [_digits(builder, here, TABLE_BYTES * g + 16 * digit) for g in (0, 1)]
                for v in (0, 1):
                    name = "llvm.x86.avx512.permvar.qi.512"
                    found = [
                        _call(builder, name, _BYTES, [digits[g], groups[g][v]]) for g in (0, 1)
                    ]
                    _add(builder, sums[v][digit], builder.add(*found))
        scales = splat(builder, args[8], _FLOATS)
        for v in (0, 1):
            to = builder.gep(base, [_WORD(32 * v)])
            _put(builder, _totals(builder, *sums[v]), scales, args[9], to)
        return context.get_dummy_value()

    return signature, generate
