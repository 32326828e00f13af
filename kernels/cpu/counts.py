"""Ones of xored rows by one vector popcount instruction: AVX-512, and whatever LLVM has elsewhere.

Two words cost xor, xor, ``falls``, popcount, add: see ``kernels.cpu.xnor``.
"""

# llvmlite and numba are untyped.
# mypy: disable-error-code="no-untyped-call"

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from kernels.cpu.vectors import AVX512, load, splat

LANES = 8  # outputs a vector: eight 64-bit counters in 512 bits
VECTOR = ir.VectorType(ir.IntType(64), LANES)
_FALLS = 0b01110100  # truth table of (y0 & ~y1) | (y1 & ~y2), bit 4*y0 + 2*y1 + y2


def emit_falls(builder: Any, y0: Any, y1: Any, y2: Any) -> Any:
    """Emit ``(y0 & ~y1) | (y1 & ~y2)``.

    LLVM 20 spells it with two instructions on AVX-512, where one VPTERNLOGQ does it: name that one.
    """
    kind = y0.type
    if AVX512 and kind == VECTOR:
        byte = ir.IntType(32)
        signature = ir.FunctionType(kind, [kind, kind, kind, byte])
        name = "llvm.x86.avx512.pternlog.q.512"
        ternary = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.call(ternary, [y0, y1, y2, byte(_FALLS)])
    ones = ir.Constant(kind, [-1] * kind.count)
    first = builder.and_(y0, builder.xor(y1, ones))
    return builder.or_(first, builder.and_(y1, builder.xor(y2, ones)))


def popcount(builder: Any, vector: Any) -> Any:
    """Emit the ones of each 64-bit lane: VPOPCNTQ on AVX-512."""
    kind = ir.FunctionType(VECTOR, [VECTOR])
    name = f"llvm.ctpop.v{LANES}i64"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])


def emit_counts(builder: Any, count: int, a: Any, b: Any, words: Any) -> list[Any]:
    """Emit the loop over pairs of words; return for each row the vector of ``sum_t popc(x_t)``.

    ``a[t, i]`` and ``b[t, l]`` are prefix xors of ``count`` rows and of ``LANES`` rows; ``words``,
    an even number, is how many there are of each.
    """
    word = ir.IntType(64)
    zero = ir.Constant(VECTOR, [0] * LANES)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
    states = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
    with cgutils.for_range(builder, builder.lshr(words, word(1))) as loop:
        a_at = builder.mul(loop.index, word(2 * count))
        b_at = builder.mul(loop.index, word(2 * LANES))
        at = [builder.add(b_at, word(half * LANES)) for half in (0, 1)]
        weights = [load(builder, builder.gep(b, [place]), VECTOR, 8) for place in at]
        for i in range(count):
            y = [builder.load(states[i])]
            for half in (0, 1):
                place = builder.add(a_at, word(half * count + i))
                value = splat(builder, builder.load(builder.gep(a, [place])), VECTOR)
                y.append(builder.xor(value, weights[half]))
            changes = popcount(builder, emit_falls(builder, *y))
            builder.store(builder.add(builder.load(sums[i]), changes), sums[i])
            builder.store(y[2], states[i])
    totals = []
    for total, state in zip(sums, states, strict=True):
        twice = builder.shl(builder.load(total), ir.Constant(VECTOR, [1] * LANES))
        totals.append(builder.add(twice, popcount(builder, builder.load(state))))
    return totals
