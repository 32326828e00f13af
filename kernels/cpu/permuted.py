"""Sums of signed numbers looked up by their signs in AVX-512: VPERMW, 32 sums an instruction.

As ``kernels.cpu.lookup``, with tables of 32 whole sums, int16, in a register: five numbers of one
plane of signs (2^5 sums), or three of two planes. Two signs of a number add up to -2, 0 or 2, which
makes 3^3 sums, kept as their halves. Fifteen numbers are a step: their sums still fit 16 bits
(15 * 2047 < 2^15). VPDPWSSD adds up the even and the odd columns of a step in 32 bits.

For 15 numbers of 32 columns of one plane that is 7 instructions, where two digits of VPSHUFB's
tables take 11 in vectors as long; of two planes 11 and 23. Measured on a Zen 4 core: 104 and 66
products a clock, VPSHUFB in vectors of 32 bytes 63 and 30.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import load, pointer, splat, store

LANES = 32  # columns a vector
ROWS = 4  # of results a tile: a pattern is loaded once for them
STEP = (0, 15, 15)  # numbers, by the planes of signs
TABLES = PATTERNS = (0, 3 * 64, 5 * 64)  # bytes a step: tables of a row, patterns of 32 columns
_NUMBERS = (0, 5, 3)  # of a table
_WEIGHTS = (0, 2, 3)  # of the next number's sign in a pattern

_SHORT, _INT, _WORD = (ir.IntType(bits) for bits in (16, 32, 64))
_SHORTS, _INTS = ir.VectorType(_SHORT, LANES), ir.VectorType(_INT, LANES // 2)
_FLOATS = ir.VectorType(ir.FloatType(), LANES // 2)


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    function = ir.FunctionType(kind, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _factors(planes: int, j: int) -> Any:
    """Return what number j of a table is multiplied by in each of its sums."""
    base = _WEIGHTS[planes]
    digits = [pattern // base**j % base for pattern in range(LANES)]
    return ir.Constant(_SHORTS, [2 * digit - 1 if planes == 1 else digit - 1 for digit in digits])


@intrinsic(prefer_literal=True)
def _store_step(typingctx, planes, q, first, stride, tables, to):
    if not isinstance(planes, types.IntegerLiteral):
        return None
    place = types.intp

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = sig.args[0].literal_value
        target = pointer(context, builder, sig.args[4], args[4], args[5])
        for table in range(TABLES[count] // 64):
            total = ir.Constant(_SHORTS, [0] * LANES)
            for j in range(_NUMBERS[count]):
                move = builder.mul(args[3], _WORD(table * _NUMBERS[count] + j))
                at = builder.add(args[2], move)
                number = builder.load(pointer(context, builder, sig.args[1], args[1], at))
                one = builder.mul(splat(builder, number, _SHORTS), _factors(count, j))
                total = builder.add(total, one)
            store(builder, total, builder.gep(target, [_WORD(64 * table)]), 1)
        return context.get_dummy_value()

    return types.void(planes, q, place, place, tables, place), generate


@jit()
def store_step(planes, q, first, stride, tables, to):
    """Write a step's tables, of ``q[first + j * stride]``, int16, from ``tables[to]`` on."""
    if planes == 2:
        _store_step(2, q, first, stride, tables, to)
    else:
        _store_step(1, q, first, stride, tables, to)


@intrinsic
def _add_where(typingctx, word, weight, out, at):
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), LANES))
        address = pointer(context, builder, sig.args[2], args[2], args[3])
        weights = splat(builder, builder.trunc(args[1], _SHORT), _SHORTS)
        old = load(builder, address, _SHORTS, 4)
        store(builder, builder.select(chosen, builder.add(old, weights), old), address, 4)
        return context.get_dummy_value()

    return types.void(types.uint32, types.intp, out, types.intp), generate


_POWERS = tuple(
    tuple(base ** (j % numbers) for j in range(15))
    for base, numbers in zip(_WEIGHTS[1:], _NUMBERS[1:], strict=True)
)


@jit()
def add_signs(word, j, planes, plane, out, at):
    """Add the signs of number j of a step, a bit a column, to patterns that began as zeros.

    ``out`` is uint32; the step's patterns begin at ``out[at]``.
    """
    if planes == 2:
        _add_where(word, _POWERS[1][j], out, at + j // 3 * 16)
    else:
        _add_where(word, _POWERS[0][j], out, at + j // 5 * 16)


def _put(builder: Any, even: Any, odd: Any, scale: Any, fresh: Any, base: Any) -> None:
    for part in range(2):
        order = [8 * part + i // 2 + 16 * (i % 2) for i in range(16)]
        both = builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(_INT, 16), order))
        place = builder.gep(base, [_WORD(16 * part)])
        old = builder.select(
            fresh, ir.Constant(_FLOATS, [0.0] * 16), load(builder, place, _FLOATS, 4)
        )
        number = builder.fmul(builder.sitofp(both, _FLOATS), scale)
        store(builder, builder.fadd(number, old), place, 4)


@intrinsic(prefer_literal=True)
def _tile(
    typingctx, rows, vectors, planes, tables, t_at, t_gap, index, i_at, i_gap, steps,
    scales, s_at, s_gap, fresh, out, o_at, o_gap,
):  # fmt: skip
    """:func:`lookup` of literally 4 or 1 ``rows`` and 2 or 1 ``vectors`` of 32 columns."""
    if not all(isinstance(kind, types.IntegerLiteral) for kind in (rows, vectors, planes)):
        return None
    at = types.intp
    signature = types.void(
        rows, vectors, planes, tables, at, at, index, at, at, at,
        scales, at, at, types.boolean, out, at, at,
    )  # fmt: skip

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lines, columns = (range(sig.args[i].literal_value) for i in (0, 1))
        count: int = sig.args[2].literal_value
        table, pattern, scale, base = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (3, 6, 10, 14)
        )
        table_of, scale_of, base_of = (
            [builder.gep(begin, [builder.mul(gap, _WORD(r))]) for r in lines]
            for begin, gap in ((table, args[5]), (scale, args[12]), (base, args[16]))
        )
        pattern_of = [builder.gep(pattern, [builder.mul(args[8], _WORD(v))]) for v in columns]
        halves = [ir.Constant(_SHORTS, pair * (LANES // 2)) for pair in ([1, 0], [0, 1])]
        zeros = ir.Constant(_INTS, [0] * _INTS.count)
        sums = {
            (r, v): [cgutils.alloca_once_value(builder, zeros) for _ in halves]
            for r in lines
            for v in columns
        }
        with cgutils.for_range(builder, args[9]) as loop:
            here = builder.mul(loop.index, _WORD(TABLES[count]))
            places = [builder.add(here, _WORD(64 * g)) for g in range(TABLES[count] // 64)]
            found = [
                [load(builder, builder.gep(begin, [p]), _SHORTS, 1) for p in places]
                for begin in pattern_of
            ]
            for r in lines:
                entries = [load(builder, builder.gep(table_of[r], [p]), _SHORTS, 1) for p in places]
                for v in columns:
                    total = None
                    for entry, which in zip(entries, found[v], strict=True):
                        name = "llvm.x86.avx512.permvar.hi.512"
                        one = _call(builder, name, _SHORTS, [entry, which])
                        total = one if total is None else builder.add(total, one)
                    for kept, half in zip(sums[r, v], halves, strict=True):
                        # With the addition this is VPDPWSSD, where the processor has it.
                        more = _call(builder, "llvm.x86.avx512.pmaddw.d.512", _INTS, [total, half])
                        builder.store(builder.add(builder.load(kept), more), kept)
        for r in lines:
            factor = builder.load(scale_of[r])
            factor = builder.fmul(factor, ir.Constant(ir.FloatType(), float(count)))
            for v in columns:
                even, odd = (builder.load(kept) for kept in sums[r, v])
                to = builder.gep(base_of[r], [_WORD(LANES * v)])
                _put(builder, even, odd, splat(builder, factor, _FLOATS), args[13], to)
        return context.get_dummy_value()

    return signature, generate


@jit()
def lookup(
    rows, wide, planes, tables, t_at, t_gap, index, i_at, i_gap, steps, scales, s_at, s_gap,
    fresh, out, o_at, o_gap,
):  # fmt: skip
    """``out[r, c] = scale[r] * sum_k (number k of row r) * (sign k of column c)``.

    Of up to ROWS rows and, if ``wide``, 64 columns, else 32; over both planes; added to ``out``
    unless ``fresh``. The number of elements from a row's tables, scale and result to the next
    row's are ``t_gap``, ``s_gap`` and ``o_gap``, from a vector's patterns to the next's ``i_gap``.
    """
    if rows == ROWS and wide:
        if planes == 2:
            _tile(ROWS, 2, 2, tables, t_at, t_gap, index, i_at, i_gap, steps, scales, s_at, s_gap,
                  fresh, out, o_at, o_gap)  # fmt: skip
        else:
            _tile(ROWS, 2, 1, tables, t_at, t_gap, index, i_at, i_gap, steps, scales, s_at, s_gap,
                  fresh, out, o_at, o_gap)  # fmt: skip
        return
    for r in range(rows):
        t, s, o = t_at + r * t_gap, s_at + r * s_gap, o_at + r * o_gap
        for v in range(2 if wide else 1):
            i = i_at + v * i_gap
            if planes == 2:
                _tile(1, 1, 2, tables, t, 0, index, i, 0, steps, scales, s, 0, fresh, out, o, 0)
            else:
                _tile(1, 1, 1, tables, t, 0, index, i, 0, steps, scales, s, 0, fresh, out, o, 0)
            o += LANES
