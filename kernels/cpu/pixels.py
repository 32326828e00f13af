"""8-bit pixels times ±1 weights on x86 without VNNI: VPMADDUBSW, 32 multiplications and 16 adds.

``2u - 255`` times w is ``2 (u . w) - 255 sum(w)``. Products of a pixel and ±1, added in pairs, lie
within ±510: 64 of them fit 16 bits, then pairs are added into 32 bits. ``torch._int_mm`` has no
fast way on such a CPU: it gave 0.001 TOP/s on a Zen 3 core where this gives over 0.1.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import load, pointer, splat, store

LANES, QUAD, ROWS = 8, 4, 4  # outputs a vector; pixels of one output beside each other; a tile
_RUN = 64  # steps of two sums within ±510 each that 16 bits hold
_BYTES = ir.VectorType(ir.IntType(8), LANES * QUAD)
_SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)


def _call(builder: Any, name: str, result: Any, *operands: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx2.{name}")
    return builder.call(function, operands)


@intrinsic(prefer_literal=True)
def _tile(typingctx, rows, u, u_at, quads, panel, panel_at, base, base_at, out, out_at, stride):
    """``out[out_at + i*stride + l] = 2 * u[i] . w[l] + base[base_at + l]`` for rows i, lanes l."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    at = types.intp
    signature = types.void(rows, u, at, at, panel, at, base, at, out, at, at)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word, count = ir.IntType(64), sig.args[0].literal_value
        pixels = pointer(context, builder, sig.args[1], args[1], args[2])
        weights = pointer(context, builder, sig.args[4], args[4], args[5])
        row_bytes = builder.mul(args[3], word(QUAD))
        zero, none = ir.Constant(_INTS, [0] * LANES), ir.Constant(_SHORTS, [0] * 2 * LANES)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
        sums = [cgutils.alloca_once_value(builder, none) for _ in range(count)]
        runs = builder.udiv(builder.add(args[3], word(_RUN - 1)), word(_RUN))
        with cgutils.for_range(builder, runs) as run:
            first = builder.mul(run.index, word(_RUN))
            left = builder.sub(args[3], first)
            here = builder.select(builder.icmp_unsigned(">", left, word(_RUN)), word(_RUN), left)
            with cgutils.for_range(builder, here) as loop:
                t = builder.add(first, loop.index)
                w = load(builder, builder.gep(weights, [builder.mul(t, word(32))]), _BYTES, 1)
                for i, total in enumerate(sums):
                    place = builder.add(builder.mul(row_bytes, word(i)), builder.mul(t, word(QUAD)))
                    quad = builder.bitcast(
                        builder.gep(pixels, [place]), ir.IntType(32).as_pointer()
                    )
                    lanes = splat(builder, builder.load(quad, align=1), _INTS)
                    pairs = _call(
                        builder, "pmadd.ub.sw", _SHORTS, builder.bitcast(lanes, _BYTES), w
                    )
                    builder.store(builder.add(builder.load(total), pairs), total)
            ones = ir.Constant(_SHORTS, [1] * 2 * LANES)
            for total, part in zip(totals, sums, strict=True):
                quads = _call(builder, "pmadd.wd", _INTS, builder.load(part), ones)
                builder.store(builder.add(builder.load(total), quads), total)
                builder.store(none, part)
        offset = load(builder, pointer(context, builder, sig.args[6], args[6], args[7]), _INTS, 4)
        target = pointer(context, builder, sig.args[8], args[8], args[9])
        for i, total in enumerate(totals):
            twice = builder.shl(builder.load(total), ir.Constant(_INTS, [1] * LANES))
            row = builder.gep(target, [builder.mul(args[10], word(i))])
            store(builder, builder.add(twice, offset), row, 4)
        return context.get_dummy_value()

    return signature, generate


@jit(parallel=True)
def _product(u, rows, quads, panels, base, out):
    width = base.size
    blocks = (rows + ROWS - 1) // ROWS
    for block in numba.prange(blocks):
        row = block * ROWS
        end = min(row + ROWS, rows)
        for panel in range(width // LANES):
            at, to = panel * quads * LANES * QUAD, panel * LANES
            if end - row == ROWS:
                _tile(ROWS, u, row * quads * QUAD, quads, panels, at, base, to, out,
                      row * width + to, width)  # fmt: skip
            else:
                for one in range(row, end):
                    _tile(1, u, one * quads * QUAD, quads, panels, at, base, to, out,
                          one * width + to, width)  # fmt: skip


def panels(signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay ±1 weights (int8 [N, K]) out as ``product`` takes them.

    Returns:
        int8 [ceil(N/8), ceil(K/4), 8, 4], zeros beyond N and K; and -255 times the sums of the
        weights, int32 [ceil(N/8) * 8].
    """
    n, k = signs.shape
    count, quads = -(-n // LANES), -(-k // QUAD)
    padded = np.zeros((count * LANES, quads * QUAD), dtype=np.int8)
    padded[:n, :k] = signs
    laid = padded.reshape(count, LANES, quads, QUAD).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(laid), -255 * padded.sum(1, dtype=np.int32)


def product(u: np.ndarray, panels: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return int32 [M, ceil(N/8) * 8] of ``(2u - 255) . w``, uint8 u [M, K] contiguous."""
    quads = panels.shape[1]
    if u.shape[1] != quads * QUAD:
        u = np.pad(u, ((0, 0), (0, quads * QUAD - u.shape[1])))
    out = np.empty((len(u), base.size), dtype=np.int32)
    if len(u):
        _product(u.reshape(-1), len(u), quads, panels.reshape(-1), base, out.reshape(-1))
    return out
