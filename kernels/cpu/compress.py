"""Numbers that a window's winners pick, moved together: 16 at a time where there is AVX-512."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import AVX512, load, pointer, splat, store

SIXTEEN = 16  # elements behind the last one that may be written over
_BYTES, _INTS, _FLOATS = (
    ir.VectorType(kind, SIXTEEN) for kind in (ir.IntType(8), ir.IntType(32), ir.FloatType())
)


def _compress(builder: Any, numbers: Any, mask: Any) -> Any:
    kind = numbers.type
    name = "llvm.x86.avx512.mask.compress." + ("v16f32" if kind == _FLOATS else "v16i32")
    function = ir.FunctionType(kind, [kind, kind, mask.type])
    call = cgutils.get_or_insert_function(builder.module, function, name)
    return builder.call(call, [numbers, ir.Constant(kind, ir.Undefined), mask])


@intrinsic
def _sixteen(typingctx, won, j, g, n, size, values, places, at):
    """:func:`chosen` for 16 maps from ``n`` on."""
    place = types.intp
    signature = types.intp(won, types.uint8, g, place, types.uint32, values, places, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word, number = ir.IntType(64), ir.IntType(32)
        winners, numbers = (
            load(builder, pointer(context, builder, sig.args[i], args[i], args[3]), kind, 1)
            for i, kind in ((0, _BYTES), (2, _FLOATS))
        )
        mask = builder.icmp_unsigned("==", winners, splat(builder, args[1], _BYTES))
        maps = builder.add(
            splat(builder, builder.trunc(args[3], number), _INTS),
            ir.Constant(_INTS, list(range(SIXTEEN))),
        )
        maps = builder.mul(maps, splat(builder, args[4], _INTS))
        for i, found in ((5, numbers), (6, maps)):
            target = pointer(context, builder, sig.args[i], args[i], args[7])
            store(builder, _compress(builder, found, mask), target, 4)
        count = builder.ctpop(builder.bitcast(mask, ir.IntType(16)))
        return builder.add(args[7], builder.zext(count, word))

    return signature, generate


@jit()
def chosen(won, j, g, size, values, places, at):
    """Write ``g[n]`` and ``n * size`` of all n with ``won[n] == j`` from ``at`` on; return the end.

    ``won`` is uint8, ``g`` and ``values`` float32, ``places`` uint32.
    """
    n, j = 0, np.uint8(j)
    if AVX512:
        while n + SIXTEEN <= won.size:
            at = _sixteen(won, j, g, n, np.uint32(size), values, places, at)
            n += SIXTEEN
    to = np.uint64(at)
    for rest in range(n, won.size):  # what is not won is written over
        values[to] = g[rest]
        places[to] = rest * size
        to += np.uint64(won[rest] == j)
    return np.int64(to)
