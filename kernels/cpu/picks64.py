"""Sums of the pixels whose weight is +1, by tables of 64, in the vectors of AVX-512 VBMI.

Six pixels have 64 such sums, one for each pattern of six weights, and one VPERMB looks up a byte of
them for 64 outputs. A sum is two digits, ``40 h + l``, of at most 39, so that a byte holds six sums
of a digit. For 36 pixels of 64 outputs a digit takes 6 look-ups, 5 additions of bytes and 3
instructions into 16 bits: 82 products an instruction, where VPDPBUSD multiplies 64.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, constant, vector_at
from kernels.cpu.picks import Sums
from kernels.cpu.vectors import pointer, splat, store

GROUP, BASE = 6, 40  # pixels a table; of its 64 sums' digits
GROUPS = 6  # whose digits are added up in a byte: 6 * 39 < 256
STEP = GROUPS * GROUP  # pixels
TABLE_BYTES = 2 * PANEL  # lower digits, then upper ones
STEP_BYTES = GROUPS * TABLE_BYTES
LONGEST = 280  # steps whose digits are added up in 16 bits: 39 * 6 * 280 < 65536
TOGETHER = 4  # panels that share a table: 24 registers of sums
ROOM = 2 * TOGETHER * PANEL  # numbers that ``pick`` works in
_WORD = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), PANEL)
_SHORTS = ir.VectorType(ir.IntType(16), PANEL // 2)
_INTS = ir.VectorType(ir.IntType(32), PANEL // 4)


def lanes() -> np.ndarray:
    """Return which of 64 outputs lies in which byte, so that 16-bit sums end in order."""
    byte = np.arange(PANEL)
    return byte % 2 * (PANEL // 2) + byte // 2


def panels(signs: np.ndarray) -> np.ndarray:
    """Lay weights out as ``pick_tile`` takes them: uint8 [N, K], 1 for +1.

    Returns:
        uint8 [ceil(N/64), ceil(K/36), 6, 64], patterns of six weights, zeros beyond N and K.
    """
    (n, k), steps = signs.shape, -(-signs.shape[1] // STEP)
    count = -(-n // PANEL)
    padded = np.zeros((count * PANEL, steps * STEP), dtype=np.uint8)
    padded[:n, :k] = signs
    weights = 1 << np.arange(GROUP, dtype=np.uint8)
    patterns = (padded.reshape(count, PANEL, steps, GROUPS, GROUP) * weights).sum(4, dtype=np.uint8)
    return np.ascontiguousarray(patterns[:, lanes()].transpose(0, 2, 3, 1))


def _call(builder: Any, name: str, result: Any, *operands: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512.{name}.512")
    return builder.call(function, operands)


def _masks() -> list[list[int]]:
    """Return which of pixels 0 and 1, of 2 and 3, and of 4 and 5 are in 32 sums without pixel 3.

    VPACKUSWB takes turns with 8 sums without it and 8 with it, so that a sum's place is its
    pattern. The fourth mask is that of pixel 3 alone.
    """
    patterns = [i % 8 | i // 8 << 4 for i in range(PANEL // 2)]
    pairs = [[(p & 1, p >> 1 & 1), (p >> 2 & 1, 0), (p >> 4 & 1, p >> 5)] for p in patterns]
    return [[bit for pair in pairs for bit in pair[j]] for j in range(3)] + [[0, 1] * len(patterns)]


def _sums(builder: Any, pixels: Any) -> tuple[Any, Any]:
    """Return the sums of 32 patterns without pixel 3, and with it, 16 bits each."""
    parts, short = [], ir.IntType(16)
    for j, mask in zip((0, 2, 4, 2), _masks(), strict=True):
        address = builder.bitcast(builder.gep(pixels, [_WORD(j)]), short.as_pointer())
        pair = builder.bitcast(splat(builder, builder.load(address, align=1), _SHORTS), _BYTES)
        parts.append(_call(builder, "pmaddubs.w", _SHORTS, pair, ir.Constant(_BYTES, mask)))
    without = builder.add(builder.add(parts[0], parts[1]), parts[2])
    return without, builder.add(without, parts[3])


@intrinsic
def store_tables(typingctx, u, at, groups, tables, to):
    """Write the tables of ``groups`` times six pixels, from ``u[at]`` on, to ``tables[to ...]``."""
    place = types.intp
    signature = types.void(u, place, place, tables, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pixels = pointer(context, builder, sig.args[0], args[0], args[1])
        target = pointer(context, builder, sig.args[3], args[3], args[4])
        with cgutils.for_range(builder, args[2]) as loop:
            first = builder.gep(pixels, [builder.mul(loop.index, _WORD(GROUP))])
            sums, inverse = _sums(builder, first), constant(_SHORTS, (1 << 16) // BASE + 1)
            high = [_call(builder, "pmulhu.w", _SHORTS, total, inverse) for total in sums]
            tens = [builder.mul(digit, constant(_SHORTS, BASE)) for digit in high]
            low = [builder.sub(*pair) for pair in zip(sums, tens, strict=True)]
            place = builder.gep(target, [builder.mul(loop.index, _WORD(TABLE_BYTES))])
            for half, digits in enumerate((low, high)):
                octets = _call(builder, "packuswb", _BYTES, *digits)
                store(builder, octets, builder.gep(place, [_WORD(PANEL * half)]), 1)
        return context.get_dummy_value()

    return signature, generate


def _quarters(builder: Any, sums: Sums) -> list[Any]:
    """Return the sums of 16 outputs each, int32."""
    some = [ir.Constant(_INTS, list(range(first, first + 16))) for first in (0, 16)]
    parts = [builder.shuffle_vector(x, x, part) for x in sums.halves(builder) for part in some]
    return [builder.zext(part, _INTS) for part in parts]


def _step(builder: Any, tables: Any, sources: list[Any]) -> list[list[Any]]:
    """Return the sums of six groups' digits in bytes, for each panel lower and upper ones."""
    totals: dict[tuple[int, int], Any] = {}
    for first in range(0, GROUPS, 2):
        # On Zen 4 VPERMB and VPADDB in turn take 1.26 clocks, after an addition of two groups 1.07.
        pair = (first, first + 1)
        entries = [
            [vector_at(builder, tables, TABLE_BYTES * g + PANEL * digit, _BYTES) for g in pair]
            for digit in (0, 1)
        ]
        for v, source in enumerate(sources):
            patterns = [vector_at(builder, source, PANEL * g, _BYTES) for g in pair]
            for digit in (0, 1):
                both = builder.add(
                    *(
                        _call(builder, "permvar.qi", _BYTES, entry, pattern)
                        for entry, pattern in zip(entries[digit], patterns, strict=True)
                    )
                )
                before = totals.get((v, digit))
                totals[v, digit] = both if before is None else builder.add(before, both)
    return [[totals[v, digit] for digit in (0, 1)] for v in range(len(sources))]


@intrinsic(prefer_literal=True)
def pick_tile(typingctx, panels, tables, at, steps, laid, laid_at, stride, start, picked, to):
    """``picked[to + 64*v + n] = start + 4 * sum`` of the pixels with weight +1, int32.

    ``tables[at ...]`` are a row's, for ``steps`` steps; from ``laid_at + v*stride`` on lie the
    patterns of panel v's outputs. ``panels``, how many, is a literal.
    """
    if not isinstance(panels, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        panels, tables, place, place, laid, place, place, types.int32, picked, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = sig.args[0].literal_value
        tables, first, target = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (1, 4, 8)
        )
        sources = [builder.gep(first, [builder.mul(args[6], _WORD(v))]) for v in range(count)]
        sums = [[Sums(builder, _SHORTS) for _ in range(2)] for _ in sources]  # panel, digit
        with cgutils.for_range(builder, args[3]) as loop:
            table = builder.gep(tables, [builder.mul(loop.index, _WORD(STEP_BYTES))])
            place = builder.mul(loop.index, _WORD(GROUPS * PANEL))
            here = [builder.gep(source, [place]) for source in sources]
            for digits, octets in zip(sums, _step(builder, table, here), strict=True):
                for digit, some in zip(digits, octets, strict=True):
                    digit.add(builder, some)
        start = splat(builder, args[7], _INTS)
        for v, (low, high) in enumerate(sums):
            parts = zip(_quarters(builder, low), _quarters(builder, high), strict=True)
            for q, (units, tens) in enumerate(parts):
                upper = builder.mul(tens, constant(_INTS, 4 * BASE))
                total = builder.add(upper, builder.shl(units, constant(_INTS, 2)))
                address = builder.gep(target, [_WORD(PANEL * v + 16 * q)])
                store(builder, builder.add(total, start), address, 4)
        return context.get_dummy_value()

    return signature, generate


@jit()
def pick(tables, at, steps, laid, panel, count, minus, picked):
    """``picked[64*v + n] = minus + 4 P`` for a row and ``count`` panels: 1, 2 or TOGETHER."""
    stride = steps * GROUPS * PANEL
    for begin in range(0, steps, LONGEST):
        some = min(LONGEST, steps - begin)
        start, to = (np.int32(0), ROOM // 2) if begin else (minus, 0)
        table, first = at + begin * STEP_BYTES, panel * stride + begin * GROUPS * PANEL
        if count == TOGETHER:
            pick_tile(TOGETHER, tables, table, some, laid, first, stride, start, picked, to)
        elif count == 2:
            pick_tile(2, tables, table, some, laid, first, stride, start, picked, to)
        else:
            pick_tile(1, tables, table, some, laid, first, stride, start, picked, to)
        if begin:
            picked[: ROOM // 2] += picked[ROOM // 2 :]
