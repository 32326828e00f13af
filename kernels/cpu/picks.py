"""Sums of the pixels whose weight is +1, by tables of 16, in the vectors of AVX2.

Four pixels have 16 such sums, one for each nibble of weights. A pixel is two digits, u = 16 h + l,
of at most 15, so that a sum of four digits fits a byte, and so do four sums. A table is 16 bytes of
l and 16 of h, and one VPSHUFB looks a digit up for 32 outputs. For 16 pixels of 32 outputs a digit
takes 4 look-ups, 3 additions of bytes and 3 instructions into 16 bits: 26 products an instruction,
where VPMADDUBSW and an addition make 16.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, broadcast, constant, shuffle, vector_at
from kernels.cpu.vectors import load, pointer, splat, store

QUAD, TABLE_BYTES = 4, 32  # pixels a table, and its 16 sums of either digit
STEP = 16  # pixels whose sums of digits are added up in a byte: 4 * 60 < 256
LONGEST = 4096  # pixels whose digits are added up in 16 bits: 15 * 4096 < 65536
_NIBBLES = 2 * PANEL  # bytes of a panel's weights for 8 pixels
_WORD = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), TABLE_BYTES)
_SHORTS = ir.VectorType(ir.IntType(16), TABLE_BYTES // 2)
_INTS = ir.VectorType(ir.IntType(32), TABLE_BYTES // 4)
_WIDE = ir.VectorType(ir.IntType(32), TABLE_BYTES // 2)
_NONE = 128  # as an index, VPSHUFB answers it with 0


def _digits(builder: Any, quad: Any) -> Any:
    """Return the digits of four pixels: ``l`` in the lower half of a vector, ``h`` in the upper."""
    octets = builder.bitcast(splat(builder, quad, _INTS), _BYTES)
    low = builder.and_(octets, constant(_BYTES, 15))
    high = builder.lshr(octets, constant(_BYTES, 4))
    order = [i if i < 16 else TABLE_BYTES + i for i in range(TABLE_BYTES)]
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), 32), order))


@intrinsic
def store_tables(typingctx, u, at, count, tables, to):
    """Write the tables of ``count`` quads of pixels, from ``u[at]`` on, to ``tables[to ...]``."""
    place = types.intp
    signature = types.void(u, place, place, tables, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pixels = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[3], args[3], args[4])
        with cgutils.for_range(builder, args[2]) as loop:
            address = builder.gep(pixels, [builder.shl(loop.index, _WORD(2))])
            quad = builder.load(builder.bitcast(address, ir.IntType(32).as_pointer()), align=1)
            digits, total = _digits(builder, quad), constant(_BYTES, 0)
            for j in range(QUAD):
                picks = [j if i >> j & 1 else _NONE for i in range(16)]
                one = shuffle(builder, digits, ir.Constant(_BYTES, picks * 2))
                total = builder.add(total, one)
            store(builder, total, builder.gep(target, [builder.shl(loop.index, _WORD(5))]), 1)
        return context.get_dummy_value()

    return signature, generate


class Sums:
    """Sums of outputs' digits: of 16-bit lanes as they are, and of the odd bytes alone."""

    def __init__(self, builder: Any, kind: ir.VectorType) -> None:
        """Begin with zeros; ``kind``: 16-bit lanes, half as many as outputs."""
        self.kind = kind
        self.lanes, self.odd = (
            cgutils.alloca_once_value(builder, constant(kind, 0)) for _ in (0, 1)
        )

    def add(self, builder: Any, octets: Any) -> None:
        """Add a vector of bytes."""
        lanes = builder.bitcast(octets, self.kind)
        builder.store(builder.add(builder.load(self.lanes), lanes), self.lanes)
        odd = builder.lshr(lanes, constant(self.kind, 8))
        builder.store(builder.add(builder.load(self.odd), odd), self.odd)

    def halves(self, builder: Any) -> tuple[Any, Any]:
        """Return the sums of the even and of the odd bytes."""
        odd = builder.load(self.odd)
        above = builder.shl(odd, constant(self.kind, 8))
        return builder.sub(builder.load(self.lanes), above), odd


@intrinsic
def pick_tile(typingctx, tables, at, steps, nibbles, nibbles_at, picked, to):
    """Add four times the sums of the pixels with weight +1 to ``picked[to + n]``, 64 outputs.

    ``tables[at ...]`` are a row's, four a step of 16 pixels; ``nibbles[t, 2, 64]`` from
    ``nibbles_at`` on the outputs' weights, two t a step; ``picked`` int32.
    """
    place = types.intp
    signature = types.void(tables, place, place, nibbles, place, picked, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tables = pointer(context, builder, sig.args[0], args[0], args[1])
        source = pointer(context, builder, sig.args[3], args[3], args[4])
        sums = [[Sums(builder, _SHORTS) for _ in range(2)] for _ in range(2)]  # vector, digit
        with cgutils.for_range(builder, args[2]) as loop:
            table = builder.gep(tables, [builder.shl(loop.index, _WORD(7))])
            base = builder.gep(source, [builder.shl(loop.index, _WORD(8))])
            bytes_of: dict[tuple[int, int], Any] = {}
            for quad in range(STEP // QUAD):
                indices = [vector_at(builder, base, PANEL * quad + 32 * v, _BYTES) for v in (0, 1)]
                for digit in (0, 1):
                    offset = _WORD(TABLE_BYTES * quad + 16 * digit)
                    entry = broadcast(builder, builder.gep(table, [offset]))
                    for v in (0, 1):
                        found = shuffle(builder, entry, indices[v])
                        before = bytes_of.get((v, digit))
                        added = found if before is None else builder.add(before, found)
                        bytes_of[v, digit] = added
            for (v, digit), octets in bytes_of.items():
                sums[v][digit].add(builder, octets)
        target = pointer(context, builder, sig.args[5], args[5], args[6])
        for v in (0, 1):
            low, high = (
                [builder.zext(half, _WIDE) for half in sums[v][digit].halves(builder)]
                for digit in (0, 1)
            )
            for half in (0, 1):
                total = builder.add(builder.shl(high[half], constant(_WIDE, 4)), low[half])
                total = builder.shl(total, constant(_WIDE, 2))
                address = builder.gep(target, [_WORD(32 * v + 16 * half)])
                store(builder, builder.add(load(builder, address, _WIDE, 4), total), address, 4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_dots(typingctx, picked, at, base, base_at, out, out_at):
    """``out[out_at + n] = picked[at + n] + base[base_at + n]`` for 64 outputs, int32."""
    place = types.intp
    signature = types.void(picked, place, base, place, out, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        picked, base, out = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 2, 4)
        )
        for n in range(0, PANEL, 16):
            first, second = (vector_at(builder, x, n, _WIDE) for x in (picked, base))
            store(builder, builder.add(first, second), builder.gep(out, [_WORD(n)]), 4)
        return context.get_dummy_value()

    return signature, generate


@jit()
def pick(tables, at, k, nibbles, minus, picked):
    """``picked[n] = minus + 4 P`` for a row, whose tables begin at ``at``, and a panel."""
    for lane in range(PANEL):
        picked[lane] = minus
    for begin in range(0, k, LONGEST):
        steps = min(LONGEST, k - begin) // STEP
        table = at + begin // QUAD * TABLE_BYTES
        pick_tile(tables, table, steps, nibbles, begin // 8 * _NIBBLES, picked, 0)
