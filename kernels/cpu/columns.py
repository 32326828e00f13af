"""Steps of numbers that share one column by column, and the numbers in them: 8 columns a vector."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.lookup import LEVELS
from kernels.cpu.signed import SMALLEST
from kernels.cpu.steps import float_of
from kernels.cpu.vectors import load, pointer, store

EIGHT = 8
_INFINITE = np.int32(0x7F800000)
_FLOATS, _INTS, _SHORTS = (
    ir.VectorType(kind, EIGHT) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16))
)


def _all(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * EIGHT)


@intrinsic
def greatest(typingctx, g, at, top, to):
    """``top[to + i] = max(top[to + i], |g[at + i]|)`` for 8 i, as the bits, int32: NaN is last."""
    place = types.intp

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers = load(builder, pointer(context, builder, sig.args[0], args[0], args[1]), _INTS, 4)
        address = pointer(context, builder, sig.args[2], args[2], args[3])
        sizes = builder.and_(numbers, _all(_INTS, 0x7FFFFFFF))
        old = load(builder, address, _INTS, 4)
        larger = builder.icmp_signed(">", sizes, old)
        store(builder, builder.select(larger, sizes, old), address, 4)
        return context.get_dummy_value()

    return types.void(g, place, top, place), generate


@intrinsic
def round_eight(typingctx, g, at, factors, f_at, q, to):
    """``q[to + i] = rint(g[at + i] * factors[f_at + i])`` for 8 i, int16; 0 where that is NaN."""
    place = types.intp

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers, factors = (
            load(builder, pointer(context, builder, sig.args[i], args[i], args[i + 1]), _FLOATS, 4)
            for i in (0, 2)
        )
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        rint = cgutils.get_or_insert_function(builder.module, kind, "llvm.rint.v8f32")
        product = builder.fmul(numbers, factors)
        known = builder.fcmp_ordered("ord", product, product)
        product = builder.select(known, product, _all(_FLOATS, 0.0))
        rounded = builder.fptosi(builder.call(rint, [product]), _INTS)
        target = pointer(context, builder, sig.args[4], args[4], args[5])
        store(builder, builder.trunc(rounded, _SHORTS), target, 2)
        return context.get_dummy_value()

    return types.void(g, place, factors, place, q, place), generate


@jit(error_model="numpy")
def steps_of(top, count, steps, factors):
    """Steps of columns by their greatest magnitudes' bits, and the inverses: 0 where none is.

    A column with a number that is not finite has a step of NaN.
    """
    for n in range(count):
        largest = float_of(top[n])
        known = top[n] < _INFINITE and largest >= SMALLEST
        steps[n] = largest / np.float32(LEVELS) if top[n] < _INFINITE else np.float32(np.nan)
        factors[n] = np.float32(LEVELS) / largest if known else np.float32(0)


def whole_columns(g: np.ndarray) -> np.ndarray:
    """Return ``g`` [M, N] with columns of zeros up to a multiple of 8, itself if it is one."""
    missing = -g.shape[1] % EIGHT
    return np.pad(g, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(g)
