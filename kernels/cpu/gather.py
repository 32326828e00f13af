"""Sums of looked-up gradients whose signs lie anywhere: patterns put together as they are needed.

As ``kernels.cpu.lookup``, for groups of four numbers that no fixed order brings together. The signs
of 64 columns are a row of 32 bytes: a column's sign in a lower nibble, that of the column 32 beyond
in the upper one. Number ``i`` of a group finds its signs at bit ``i`` of the nibbles, so four rows,
one OR the other, are the patterns of 64 columns. A row takes a place of 128 bytes: four rows of 32,
of which number ``i`` reads the i-th. With AVX-512 (``kernels.cpu.gather512``) a row is of 128
columns where there are so many, two of 64 beside each other.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.gather512 import ROW, wide_tile
from kernels.cpu.jit import jit
from kernels.cpu.lookup import (
    GROUP,
    LANES,
    TABLE_BYTES,
    digits_at,
    look_up,
    put_columns,
    start_sums,
)
from kernels.cpu.vectors import VBMI, load, pointer

WIDE = 2 * LANES  # columns of a row of signs
_WORD = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES // 2)


def _patterns(builder: Any, source: Any, rows: Any, group: Any, ready: bool) -> list[Any]:
    """Return a group's patterns of 32 columns and of the 32 beyond."""
    found = []
    for i in range(GROUP):
        index = builder.add(builder.mul(group, _WORD(GROUP)), _WORD(i))
        offset = builder.zext(builder.load(builder.gep(rows, [index])), _WORD)
        place = builder.gep(source, [offset])
        place = builder.gep(place, [_WORD(i * LANES)]) if ready else place
        found.append(load(builder, place, _BYTES, 1))
    if not ready:
        found[1], found[3] = (builder.add(found[i], found[i]) for i in (1, 3))
    halves = [builder.or_(found[i], found[i + 1]) for i in (0, 2)]
    if not ready:  # two bits a nibble: none leaves its byte
        shorts = builder.bitcast(halves[1], _SHORTS)
        halves[1] = builder.bitcast(builder.shl(shorts, ir.Constant(_SHORTS, [2] * 16)), _BYTES)
    both = builder.or_(*halves)
    above = builder.lshr(builder.bitcast(both, _SHORTS), ir.Constant(_SHORTS, [GROUP] * 16))
    nibble = ir.Constant(_BYTES, [15] * LANES)
    return [builder.and_(part, nibble) for part in (both, builder.bitcast(above, _BYTES))]


@intrinsic(prefer_literal=True)
def gather_tile(
    typingctx, ready, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at
):
    """Add ``scale * sum_g table_g[pattern_g[c]]`` to ``out[o_at + c]``; write it if ``fresh``.

    Args:
        ready: literal 1 where places are of four rows, 0 where they are of one, at bit 0.
        tables: uint8; ``t_at`` is where those of the first group begin.
        rows: uint32; from ``r_at`` on, four a group: where in ``signs``, ``s_at`` bytes on, the
            places of its numbers begin.
        signs: uint8.
        pairs: number of pairs of groups, at most 64.
        scale: float32.
        out: float32.
    """
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
        four = sig.args[0].literal_value == 1
        sums = [start_sums(builder, args[7]) for _ in range(2)]
        with cgutils.for_range(builder, args[7]) as loop:
            here = builder.gep(table, [builder.mul(loop.index, _WORD(2 * TABLE_BYTES))])
            first = builder.mul(loop.index, _WORD(2))
            groups = [
                _patterns(builder, source, row, builder.add(first, _WORD(g)), four) for g in (0, 1)
            ]
            for digit in (0, 1):
                digits = [digits_at(builder, here, TABLE_BYTES * g + 16 * digit) for g in (0, 1)]
                for v in (0, 1):
                    found = [look_up(builder, digits[g], groups[g][v]) for g in (0, 1)]
                    sums[v][digit].add(builder, builder.add(*found))
        put_columns(builder, sums, args[8], args[9], base)
        return context.get_dummy_value()

    return signature, generate


def row_size(panels: int) -> int:
    """Return the bytes of a row of signs where there are 64 columns times ``panels``."""
    return ROW if VBMI and panels % 2 == 0 else LANES


@jit()
def gather(
    ready, size, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at
):  # fmt: skip
    """:func:`gather_tile` for rows of ``size`` bytes: 64 or 128 columns."""
    if VBMI:  # noqa: SIM102 - alone, so that what this processor lacks is not compiled
        if size == ROW:
            if ready:
                wide_tile(1, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at)
            else:
                wide_tile(0, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at)
            return
    if ready:
        gather_tile(1, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at)
    else:
        gather_tile(0, tables, t_at, rows, r_at, signs, s_at, pairs, scale, fresh, out, o_at)


@jit()
def spread(low, high, bit, out, at):
    """Write the signs of 64 columns, two words of 32 bits, as a row of 32 bytes at bit ``bit``.

    ``out`` is uint32 and the row begins at ``out[at]``. Columns lie as ``kernels.cpu.lookup`` has
    them: 8 ``q + lane`` in byte q of a lane.
    """
    mask = np.uint32(0x01010101)
    for lane in range(8):
        lower, upper = (low >> np.uint32(lane)) & mask, (high >> np.uint32(lane)) & mask
        out[at + lane] = (lower | upper << np.uint32(GROUP)) << np.uint32(bit)
