"""The packed CPU product: xor and popcount on 64-bit words, blocked for registers and caches.

With ``x_t = a_t ^ b_t`` the product needs ``sum_t popc(x_t)``. Let ``y_t = x_1 ^ ... ^ x_t``: it is
the xor of the two rows' own prefix xors, which are formed once a row. In each bit position the ones
among ``x_1..x_T`` are the changes along ``y_0 = 0, y_1, ..., y_T``, so

    sum_t popc(x_t) = 2 * (number of 1 -> 0 changes) + popc(y_T),

and two steps hold at most one 1 -> 0 change: ``c = (y0 & ~y1) | (y1 & ~y2)``, one three-input logic
instruction. Two words thus cost xor, xor, logic, popcount, add: 5 vector instructions and one
popcount, where ``popc(a ^ b)`` word by word costs 6 and two.

The vector runs over 8 outputs (8 rows of the weights, stored word by word): no horizontal sum, no
waste at small K. The tile is written as LLVM vectors, so that its shape in registers is the one
meant; LLVM lowers them to VPOPCNTQ and VPTERNLOGQ on AVX-512, and to what AVX2 or NEON have.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit

LANES = 8  # outputs a vector: eight 64-bit counters in 512 bits
PANEL_BYTES = 1 << 18  # weights that a thread goes over before it takes new rows: a part of L2


_FALLS = 0b01110100  # truth table of (y0 & ~y1) | (y1 & ~y2), bit 4*y0 + 2*y1 + y2
_AVX512 = bool(binding.get_host_cpu_features().get("avx512f", False))
# Two vectors of state an output row. With the 32 registers of AVX-512 8 rows spill nothing: 2.38
# TOP/s a core at 2048^3, against 2.26 with 12 rows and 8 spills. AVX2 and NEON hold three rows.
TILE_ROWS = 8 if _AVX512 else 3


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic(prefer_literal=True)
def _tile(typingctx, rows, alpha, beta, beta_at, steps, k, out, out_at, stride):
    """``out[out_at + i*stride + l] = k - 2*sum_t popc`` for rows i and lanes l.

    ``alpha[t, i]`` and ``beta[t, l]`` are prefix xors, ``t < 2*steps``; ``rows`` is a literal.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count = rows.literal_value
    signature = types.void(
        rows, alpha, beta, types.intp, types.intp, types.intp, out, types.intp, types.intp
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, alpha_, beta_, beta_at_, steps_, k_, out_, out_at_, stride_ = args
        zero = ir.Constant(ir.IntType(64), 0)
        a = _pointer(context, builder, sig.args[1], alpha_, zero)
        b = _pointer(context, builder, sig.args[2], beta_, beta_at_)
        o = _pointer(context, builder, sig.args[6], out_, out_at_)
        totals = _emit_counts(builder, count, a, b, steps_)
        _emit_stores(builder, totals, k_, o, stride_)
        return context.get_dummy_value()

    return signature, generate


_VECTOR = ir.VectorType(ir.IntType(64), LANES)


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


def _load_vector(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)


def _emit_falls(builder: Any, y0: Any, y1: Any, y2: Any) -> Any:
    """Emit ``(y0 & ~y1) | (y1 & ~y2)``.

    LLVM 20 spells it with two instructions on AVX-512, where one VPTERNLOGQ does it: name that one.
    """
    if _AVX512:
        byte, kind = ir.IntType(32), [_VECTOR] * 3
        signature = ir.FunctionType(_VECTOR, [*kind, byte])
        name = "llvm.x86.avx512.pternlog.q.512"
        ternary = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.call(ternary, [y0, y1, y2, byte(_FALLS)])
    ones = ir.Constant(_VECTOR, [-1] * LANES)
    first = builder.and_(y0, builder.xor(y1, ones))
    return builder.or_(first, builder.and_(y1, builder.xor(y2, ones)))


def _emit_counts(builder: Any, count: int, a: Any, b: Any, steps: Any) -> list[Any]:
    """Emit the loop over pairs of words; return for each row the vector of ``sum_t popc(x_t)``."""
    word = ir.IntType(64)
    zero = ir.Constant(_VECTOR, [0] * LANES)
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    popcount = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{LANES}i64")
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
    states = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
    with cgutils.for_range(builder, steps) as loop:
        a_at = builder.mul(loop.index, word(2 * count))
        b_at = builder.mul(loop.index, word(2 * LANES))
        weights = [
            _load_vector(builder, builder.gep(b, [builder.add(b_at, word(half * LANES))]))
            for half in (0, 1)
        ]
        for i in range(count):
            y = [builder.load(states[i])]
            for half in (0, 1):
                at = builder.add(a_at, word(half * count + i))
                y.append(
                    builder.xor(_splat(builder, builder.load(builder.gep(a, [at]))), weights[half])
                )
            changes = builder.call(popcount, [_emit_falls(builder, *y)])
            builder.store(builder.add(builder.load(sums[i]), changes), sums[i])
            builder.store(y[2], states[i])
    totals = []
    for total, state in zip(sums, states, strict=True):
        twice = builder.shl(builder.load(total), ir.Constant(_VECTOR, [1] * LANES))
        totals.append(builder.add(twice, builder.call(popcount, [builder.load(state)])))
    return totals


def _emit_stores(builder: Any, totals: list[Any], k: Any, out: Any, stride: Any) -> None:
    half_vector = ir.VectorType(ir.IntType(32), LANES)
    length, one = _splat(builder, k), ir.Constant(_VECTOR, [1] * LANES)
    for i, total in enumerate(totals):
        dots = builder.trunc(builder.sub(length, builder.shl(total, one)), half_vector)
        row = builder.gep(out, [builder.mul(stride, ir.IntType(64)(i))])
        builder.store(dots, builder.bitcast(row, half_vector.as_pointer()), align=4)


@jit()
def _prefix_rows(words, first, count, alpha):
    """``alpha[t, i] = words[first+i, 0] ^ ... ^ words[first+i, t]``; an odd end is repeated."""
    total = words.shape[1]
    for i in range(count):
        state = np.uint64(0)
        for t in range(total):
            state ^= words[first + i, t]
            alpha[t * count + i] = state
        if total % 2:
            alpha[total * count + i] = state


@jit()
def _panels_of(words):
    """Lay packed rows [N, W] out as prefix xors [ceil(N/8), W rounded up to even, 8], flat."""
    rows, total = words.shape
    even = total + total % 2
    count = (rows + LANES - 1) // LANES
    panels = np.zeros(count * even * LANES, dtype=np.uint64)
    for n in range(rows):
        base = (n // LANES) * even * LANES + n % LANES
        state = np.uint64(0)
        for t in range(even):
            if t < total:
                state ^= words[n, t]
            panels[base + t * LANES] = state
    return panels


@jit()
def _rows_by_panels(words, first, count, panels, begin, end, n, k, alpha, edge, out):
    """Rows ``first..first+count`` (TILE_ROWS or 1) times panels ``begin..end``."""
    even = words.shape[1] + words.shape[1] % 2
    _prefix_rows(words, first, count, alpha)
    for panel in range(begin, end):
        at = panel * even * LANES
        left = n - panel * LANES
        whole = left >= LANES
        target = out if whole else edge
        out_at = first * n + panel * LANES if whole else 0
        stride = n if whole else LANES
        if count == TILE_ROWS:
            _tile(TILE_ROWS, alpha, panels, at, even // 2, k, target, out_at, stride)
        else:
            _tile(1, alpha, panels, at, even // 2, k, target, out_at, stride)
        if not whole:
            for i in range(count):
                for lane in range(left):
                    out[(first + i) * n + panel * LANES + lane] = edge[i * LANES + lane]


@jit()
def _task(words, panels, n, k, row_begin, row_end, begin, end, out):
    even = words.shape[1] + words.shape[1] % 2
    alpha = np.empty(even * TILE_ROWS, dtype=np.uint64)
    edge = np.empty(TILE_ROWS * LANES, dtype=np.int32)
    row = row_begin
    while row < row_end:
        count = TILE_ROWS if row + TILE_ROWS <= row_end else 1
        _rows_by_panels(words, row, count, panels, begin, end, n, k, alpha, edge, out)
        row += count


@jit(parallel=True)
def _product(words, panels, n, k, row_parts, panel_parts, out):
    blocks = (words.shape[0] + TILE_ROWS - 1) // TILE_ROWS
    count = (n + LANES - 1) // LANES
    for task in numba.prange(row_parts * panel_parts):
        part, chunk = task // panel_parts, task % panel_parts
        row_begin = blocks * part // row_parts * TILE_ROWS
        row_end = min(blocks * (part + 1) // row_parts * TILE_ROWS, words.shape[0])
        begin, end = count * chunk // panel_parts, count * (chunk + 1) // panel_parts
        _task(words, panels, n, k, row_begin, row_end, begin, end, out)


def panels(words: np.ndarray) -> np.ndarray:
    """Return packed rows (int64 [N, W]) as the panels that ``product`` takes (int64, flat)."""
    laid: np.ndarray = _panels_of(words.view(np.uint64))
    return laid.view(np.int64)


def product(words: np.ndarray, panels: np.ndarray, n: int, k: int, out: np.ndarray) -> None:
    """Write the dots of packed rows (int64 [M, W]) and panels of N rows to ``out`` (int32 [M, N]).

    The work is cut into tasks of rows x panels: rows over the threads, panels by ``PANEL_BYTES``;
    too few rows for the threads are made up for by more cuts of the panels.
    """
    rows, total = words.shape
    if rows == 0 or n == 0:
        return
    blocks, count = -(-rows // TILE_ROWS), -(-n // LANES)
    threads = numba.get_num_threads()
    row_parts = min(blocks, threads)
    by_cache = -(-count * total * LANES * 8 // PANEL_BYTES)
    panel_parts = min(count, max(by_cache, -(-threads // row_parts)))
    words, panels = words.view(np.uint64), panels.view(np.uint64)
    _product(words, panels, n, k, row_parts, panel_parts, out.reshape(-1))
