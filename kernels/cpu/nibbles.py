"""Ones of xored rows by tables of 16, in the vectors of AVX2: VPSHUFB looks up 32 nibbles at once.

A nibble of the activations picks one of 16 tables, ``popc(nibble ^ i)`` for all i; the nibbles i of
32 outputs are the indices of one VPSHUFB. A look-up and an addition are 128 bit products; xor,
falls and a popcount (``kernels.cpu.counts``) take 13 instructions for 512. On a Zen 3 core a tile
of 4 rows gives 1.15 to 1.24 TOP/s from the L1 cache, where those give 0.72. Counts are summed up in
bytes, which hold 31 steps of two nibbles, and then in 16 bits.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.vectors import load, pointer, store

PANEL = 64  # outputs of a tile: two vectors of bytes, and one packed word
RUN = 31  # bytes of a row whose 62 counts, up to 4 each, a byte holds
_VECTOR = 32
_WORD = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), _VECTOR)
_HALF = ir.VectorType(ir.IntType(8), _VECTOR // 2)
_SHORTS = ir.VectorType(ir.IntType(16), _VECTOR // 2)
_EIGHT = ir.VectorType(ir.IntType(16), 8)
_INTS = ir.VectorType(ir.IntType(32), 8)
_PANEL_SHORTS = ir.VectorType(ir.IntType(16), PANEL)


def tables() -> np.ndarray:
    """Return uint8 [2, 256, 16]: ones of ``i`` xor the lower, then the upper nibble of a byte."""
    byte, i = np.arange(256)[:, None], np.arange(16)
    ones = np.array([value.bit_count() for value in range(16)], dtype=np.uint8)
    return np.stack([ones[byte % 16 ^ i], ones[byte // 16 ^ i]])


def lanes() -> np.ndarray:
    """Return which of 64 outputs lies in which byte, so that 16-bit sums end in order."""
    vector, pair, odd = np.arange(2)[:, None, None], np.arange(16)[:, None], np.arange(2)
    return (vector * _VECTOR + odd * 16 + pair).reshape(-1)


def constant(kind: ir.VectorType, value: int) -> ir.Constant:
    """Return ``value`` in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def vector_at(builder: Any, address: Any, index: Any, kind: ir.VectorType) -> Any:
    """Return the vector that starts ``index`` elements after ``address``."""
    place = builder.gep(address, [_WORD(index) if isinstance(index, int) else index])
    return load(builder, place, kind, 1)


def broadcast(builder: Any, address: Any) -> Any:
    """Return the 16 bytes at ``address`` in both halves of a vector."""
    half = load(builder, address, _HALF, 1)
    twice = ir.Constant(ir.VectorType(ir.IntType(32), _VECTOR), [*range(16), *range(16)])
    return builder.shuffle_vector(half, ir.Constant(_HALF, ir.Undefined), twice)


def shuffle(builder: Any, table: Any, indices: Any) -> Any:
    """Return ``table[index]`` of 32 indices, in either half of its own 16 entries."""
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    name = "llvm.x86.avx2.pshuf.b"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [table, indices])


def _add_to_sums(builder: Any, target: Any, parts: list[list[Any]]) -> None:
    for i, row in enumerate(parts):
        for vector, part in enumerate(row):
            pairs = builder.bitcast(builder.load(part), _SHORTS)
            even = builder.and_(pairs, constant(_SHORTS, 255))
            odd = builder.lshr(pairs, constant(_SHORTS, 8))
            for half, some in enumerate((even, odd)):
                place = builder.gep(target, [_WORD(PANEL * i + _VECTOR * vector + 16 * half)])
                store(builder, builder.add(load(builder, place, _SHORTS, 2), some), place, 2)


def _indices(builder: Any, ready: bool, source: Any, step: Any) -> list[list[Any]]:
    """Emit the loads of a step's indices: of its lower nibbles, then of its upper ones."""
    if ready:
        base = builder.gep(source, [builder.shl(step, _WORD(7))])
        return [
            [vector_at(builder, base, PANEL * half + _VECTOR * v, _BYTES) for v in (0, 1)]
            for half in (0, 1)
        ]
    base = builder.gep(source, [builder.shl(step, _WORD(6))])
    octets = [vector_at(builder, base, _VECTOR * v, _BYTES) for v in (0, 1)]
    return [[_lower(builder, x) for x in octets], [_upper(builder, x) for x in octets]]


def _lower(builder: Any, octets: Any) -> Any:
    return builder.and_(octets, constant(_BYTES, 15))


def _upper(builder: Any, octets: Any) -> Any:
    return builder.lshr(octets, constant(_BYTES, 4))


@intrinsic(prefer_literal=True)
def count_tile(
    typingctx, rows, ready, octets, at, stride, steps, weights, weights_at, table, sums, sums_at
):
    """Add the ones of rows i in ``steps`` bytes to ``sums[sums_at + 64*i ...]``, for 64 outputs.

    ``octets[at + i*stride + t]`` are the rows; ``weights`` from ``weights_at`` on are [t, 64]
    packed, or, if ``ready`` is 1, [t, 2, 64] as ``split`` leaves them. ``rows`` and ``ready`` are
    literals; ``sums`` uint16.
    """
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(ready, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, ready, octets, place, place, place, weights, place, table, sums, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count, split = sig.args[0].literal_value, sig.args[1].literal_value == 1
        first = pointer(context, builder, sig.args[2], args[2], args[3])
        row = [builder.gep(first, [builder.mul(args[4], _WORD(i))]) for i in range(count)]
        source = pointer(context, builder, sig.args[6], args[6], args[7])
        table = pointer(context, builder, sig.args[8], args[8], _WORD(0))
        zero = constant(_BYTES, 0)
        parts = [[cgutils.alloca_once_value(builder, zero) for _ in (0, 1)] for _ in range(count)]
        with cgutils.for_range(builder, args[5]) as loop:
            for half, wanted in enumerate(_indices(builder, split, source, loop.index)):
                for i in range(count):
                    byte = builder.load(builder.gep(row[i], [loop.index]))
                    offset = builder.shl(builder.zext(byte, _WORD), _WORD(4))
                    offset = builder.add(offset, _WORD(4096 * half))
                    entry = broadcast(builder, builder.gep(table, [offset]))
                    for part, index in zip(parts[i], wanted, strict=True):
                        found = shuffle(builder, entry, index)
                        builder.store(builder.add(builder.load(part), found), part)
        _add_to_sums(builder, pointer(context, builder, sig.args[9], args[9], args[10]), parts)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def split(typingctx, panels, at, steps, nibbles):
    """``nibbles[t, 0], nibbles[t, 1]`` = lower and upper nibbles of ``panels[at + 64*t ...]``."""
    signature = types.void(panels, types.intp, types.intp, nibbles)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[3], args[3], _WORD(0))
        with cgutils.for_range(builder, args[2]) as loop:
            for vector in (0, _VECTOR):
                at = builder.add(builder.shl(loop.index, _WORD(6)), _WORD(vector))
                octets = vector_at(builder, source, at, _BYTES)
                place = builder.add(builder.shl(loop.index, _WORD(7)), _WORD(vector))
                store(builder, _lower(builder, octets), builder.gep(target, [place]), 1)
                place = builder.add(place, _WORD(PANEL))
                store(builder, _upper(builder, octets), builder.gep(target, [place]), 1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def store_dots(typingctx, outputs, stream, sums, at, base, base_at, out, out_at):
    """``out[out_at + n] = base[base_at + n] - 2 * sums[at + n]``, int32, n < ``outputs``.

    ``outputs``, a literal, is a multiple of 8. If the literal ``stream`` is 1, past the caches:
    ``out[out_at]`` then begins a vector.
    """
    if not all(isinstance(kind, types.IntegerLiteral) for kind in (outputs, stream)):
        return None
    place = types.intp
    signature = types.void(outputs, stream, sums, place, base, place, out, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, base, out = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (2, 4, 6)
        )
        past = sig.args[1].literal_value == 1
        once = builder.module.add_metadata([ir.IntType(32)(1)])
        for n in range(0, sig.args[0].literal_value, 8):
            ones = builder.zext(vector_at(builder, sums, n, _EIGHT), _INTS)
            twice = builder.shl(ones, constant(_INTS, 1))
            dots = builder.sub(vector_at(builder, base, n, _INTS), twice)
            address = builder.bitcast(builder.gep(out, [_WORD(n)]), _INTS.as_pointer())
            written = builder.store(dots, address, align=32 if past else 4)
            if past:
                written.set_metadata("nontemporal", once)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def reached_word(typingctx, sums, at, limits, limits_at):
    """Return 64 bits ``sums[at + n] <= limits[limits_at + n]``: sums below 2^15, limits int16."""
    signature = types.uint64(sums, types.intp, limits, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ones, most = (
            load(builder, pointer(context, builder, sig.args[i], args[i], args[i + 1]),
                 _PANEL_SHORTS, 2)
            for i in (0, 2)
        )  # fmt: skip
        return builder.bitcast(builder.icmp_signed("<=", ones, most), _WORD)

    return signature, generate


@intrinsic
def copy_vector(typingctx, source, at, target, to):
    """``target[to : to + 32] = source[at : at + 32]``, uint8."""
    signature = types.void(source, types.intp, target, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[2], args[2], args[3])
        store(builder, load(builder, source, _BYTES, 1), target, 1)
        return context.get_dummy_value()

    return signature, generate
