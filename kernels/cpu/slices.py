"""Ones of xored rows by look-ups and bit-sliced counters: processors with AVX-512 VBMI and GFNI.

Six bits of a row are an index: five of K and the parity of those before, in a chain. Of the ones
``c`` among the six xored bits a chain keeps the parity (the xor of the two rows' own parities), so
only ``h = c >> 1`` in 0..3 is counted, and the ones are ``2 * sum h`` plus the chains' last parity.
Both bits of ``h`` come for 64 outputs and 8 rows, a bit of a byte each, with one instruction:

- the upper, ``c >= 4``, from a table of 64 bytes by VPERMB;
- the lower, ``(c >> 1) & 1``, by VGF2P8AFFINEQB. It is, modulo 2, the sum e2 of the products of
  two of the six bits, and ``e2(x ^ w) = e2(x) ^ e2(w) ^ e1(x) e1(w) ^ <x, w>``, e1 the parity, is
  linear in w's six bits, ``e2(w)`` and 1, which fill the index's byte.

Full adders of two VPTERNLOGQ sum the bits up in slices: slice p holds bit p of every count. A
look-up and its adder are three instructions for 1280 products; xor, falls and popcount are five for
1024. On a Zen 4 core a tile gives 4.5 TOP/s from the L1 cache, where those give 2.8.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.vectors import load, pointer, splat, store

ROWS = 8  # of a tile: bits of a byte
LANES = 64  # outputs of a tile
RUN = 64  # indices that a tile counts at a time: 192 at most, eight slices
_STEP = 4  # indices whose counts leave one bit of weight 16
_SUM, _CARRY = 0x96, 0xE8  # truth tables of a ^ b ^ c and of the majority
_LESS = 0x8E  # of a < b, or c where they are equal
_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
BYTES = ir.VectorType(_BYTE, LANES)
WORDS = ir.VectorType(_WORD, LANES // 8)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)


def constant(values: Any) -> ir.Constant:
    """Return a vector of these 64 bytes."""
    return ir.Constant(BYTES, [int(value) for value in values])


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    return builder.call(function, arguments)


def pick(builder: Any, table: Any, indices: Any) -> Any:
    """Return ``table[index & 63]`` of 64 indices: VPERMB."""
    return _call(builder, "avx512.permvar.qi.512", BYTES, table, indices)


def affine(builder: Any, octets: Any, matrices: Any) -> Any:
    """Return bits ``parity(octet & matrix byte 7 - i)``, i the bit: VGF2P8AFFINEQB."""
    return _call(builder, "vgf2p8affineqb.512", BYTES, octets, matrices, _BYTE(0))


def _ternary(builder: Any, table: int, *vectors: Any) -> Any:
    return _call(builder, "avx512.pternlog.q.512", WORDS, *vectors, ir.IntType(32)(table))


def as_kind(builder: Any, vector: Any, kind: Any) -> Any:
    """Return a vector as one of another kind, the same bits."""
    return vector if vector.type == kind else builder.bitcast(vector, kind)


def add_bits(builder: Any, *vectors: Any) -> tuple[Any, Any]:
    """Return the sum bits and the carries of two or three vectors of bits."""
    bits = [as_kind(builder, x, WORDS) for x in vectors]
    if len(bits) == 2:
        return builder.xor(*bits), builder.and_(*bits)
    return _ternary(builder, _SUM, *bits), _ternary(builder, _CARRY, *bits)


def words_at(builder: Any, address: Any, index: Any) -> Any:
    """Return the 64 bytes from ``address`` + 64 * ``index`` on, as words."""
    at = _WORD(LANES * index) if isinstance(index, int) else builder.shl(index, _WORD(6))
    return load(builder, builder.gep(address, [at]), WORDS, 8)


def keep(builder: Any, value: Any, address: Any, index: Any) -> None:
    """Write a vector to ``address`` + 64 * ``index``."""
    at = _WORD(LANES * index) if isinstance(index, int) else builder.shl(index, _WORD(6))
    store(builder, value, builder.gep(address, [at]), 8)


class _Low:
    """Slices 0 to 3 of the counts, in registers."""

    def __init__(self, builder: Any, slices: Any) -> None:
        self.builder = builder
        self.parts = [
            cgutils.alloca_once_value(builder, words_at(builder, slices, p)) for p in range(4)
        ]

    def add(self, p: int, *bits: Any) -> Any:
        """Add one or two vectors of weight 2^p to slice p; return the carries."""
        old = self.builder.load(self.parts[p])
        total, carry = add_bits(self.builder, old, *bits)
        self.builder.store(total, self.parts[p])
        return carry

    def keep(self, slices: Any) -> None:
        """Write the slices back."""
        for p, part in enumerate(self.parts):
            keep(self.builder, self.builder.load(part), slices, p)


def _look_up(builder: Any, sources: Any, at: Any) -> tuple[Any, Any]:
    """Emit the look-ups of an index: the lower and the upper bits of ``h``."""
    tables, matrices, indices = sources
    octets = as_kind(builder, words_at(builder, indices, at), BYTES)
    word = load(builder, builder.gep(matrices, [builder.shl(at, _WORD(3))]), _WORD, 8)
    lower = affine(builder, octets, as_kind(builder, splat(builder, word, WORDS), BYTES))
    return lower, pick(builder, as_kind(builder, words_at(builder, tables, at), BYTES), octets)


def _count_step(builder: Any, low: _Low, sources: Any, step: Any) -> Any:
    """Emit the look-ups and adders of four indices; return bits of weight 16."""
    first, pairs = builder.shl(step, _WORD(2)), []
    for i in (0, 2):
        a, b = (_look_up(builder, sources, builder.add(first, _WORD(i + j))) for j in (0, 1))
        pairs.append((low.add(0, a[0], b[0]), low.add(1, a[1], b[1])))
    (twos, fours), (more_twos, more_fours) = pairs
    fours_of_twos = low.add(1, twos, more_twos)
    return low.add(3, low.add(2, fours, more_fours), low.add(2, fours_of_twos))


def _settle(builder: Any, slices: Any, count: Any, carries: list[Any]) -> None:
    """Add vectors of weight 16 to slices from 4 on, what they leave one slice after another."""
    p = 4
    while len(carries) > 1:
        total, left = words_at(builder, slices, p), []
        for a, b in zip(carries[::2], carries[1::2], strict=True):
            total, carry = add_bits(builder, total, a, b)
            left.append(carry)
        keep(builder, total, slices, p)
        carries, p = left, p + 1
    carry = cgutils.alloca_once_value(builder, carries[0])
    with cgutils.for_range(builder, builder.sub(count, _WORD(p))) as loop:
        place = builder.add(loop.index, _WORD(p))
        total, more = add_bits(builder, words_at(builder, slices, place), builder.load(carry))
        keep(builder, total, slices, place)
        builder.store(more, carry)


@intrinsic
def count_tile(
    typingctx, tables, tables_at, matrices, indices, indices_at, steps, count, slices, slices_at
):
    """Add ``h`` of 8 rows and 64 outputs over ``4 * steps`` indices to slices of bits.

    Args:
        tables, matrices: uint8, as ``prepare`` leaves them, from ``tables_at`` and
            ``tables_at / 8`` on.
        indices: uint8 [t, 64] from ``indices_at`` on.
        steps: at most RUN / 4.
        count: slices, at least 8 and enough for the counts.
        slices: uint8 [count, 64] from ``slices_at`` on: bit r of byte n of slice p is bit p of
            the count of row r and output n.
    """
    place = types.intp
    signature = types.void(tables, place, matrices, indices, place, place, place, slices, place)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        eighth = builder.lshr(args[1], _WORD(3))
        sources = [
            pointer(context, builder, sig.args[i], args[i], at)
            for i, at in ((0, args[1]), (2, eighth), (3, args[4]))
        ]
        slices = pointer(context, builder, sig.args[7], args[7], args[8])
        most = RUN // _STEP
        kept = cgutils.alloca_once(builder, WORDS, size=most)
        for i in range(most):
            builder.store(ir.Constant(WORDS, [0] * 8), builder.gep(kept, [_WORD(i)]))
        low = _Low(builder, slices)
        with cgutils.for_range(builder, args[5]) as loop:
            left = _count_step(builder, low, sources, loop.index)
            builder.store(left, builder.gep(kept, [loop.index]))
        low.keep(slices)
        carries = [builder.load(builder.gep(kept, [_WORD(i)])) for i in range(most)]
        _settle(builder, slices, args[6], carries)
        return context.get_dummy_value()

    return signature, generate


def _swap(builder: Any, planes: list[Any]) -> list[Any]:
    """Return eight vectors with bit i of vector j as bit j of vector i: a transposed 8 x 8."""
    for apart, mask in ((4, 0x0F), (2, 0x33), (1, 0x55)):
        low, high, shift = (constant([x] * LANES) for x in (mask, 255 - mask, apart))
        turned = list(planes)
        for i in range(8):
            if not i & apart:
                a, b = planes[i], planes[i + apart]
                up, down = builder.shl(b, shift), builder.lshr(a, shift)
                turned[i] = builder.or_(builder.and_(a, low), builder.and_(up, high))
                turned[i + apart] = builder.or_(builder.and_(down, low), builder.and_(b, high))
        planes = turned
    return planes


def _parity(builder: Any, indices: Any, odd: Any) -> Any:
    own = builder.trunc(load(builder, indices, BYTES, 1), ir.VectorType(ir.IntType(1), LANES))
    return builder.xor(builder.sext(own, BYTES), splat(builder, odd, BYTES))


@intrinsic
def read_counts(typingctx, slices, at, count, odd, indices, indices_at, sums):
    """``sums[64*r + n]`` = ``2 * h + parity`` of 8 rows and 64 outputs, uint16.

    Args:
        slices: uint8; slice p of these outputs lies at ``at + 64*p``.
        count: slices, at most 15.
        odd: bit r: the parity that row r's chains end with.
        indices: uint8 [64] from ``indices_at`` on: bit 0 is that parity of each output.
        sums: uint16 [8 * 64].
    """
    signature = types.void(slices, types.intp, types.intp, types.uint8, indices, types.intp, sums)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = pointer(context, builder, sig.args[0], args[0], args[1])
        index = pointer(context, builder, sig.args[4], args[4], args[5])
        target = pointer(context, builder, sig.args[6], args[6], _WORD(0))
        parity = _parity(builder, index, args[3])
        planes = [cgutils.alloca_once_value(builder, constant([0] * LANES)) for _ in range(16)]
        builder.store(parity, planes[0])
        for p in range(15):
            with builder.if_then(builder.icmp_signed("<", _WORD(p), args[2])):
                slice_p = load(builder, builder.gep(source, [_WORD(LANES * p)]), BYTES, 8)
                builder.store(slice_p, planes[p + 1])
        bits = [builder.load(plane) for plane in planes]
        low, high = _swap(builder, bits[:8]), _swap(builder, bits[8:])
        for r in range(ROWS):
            upper = builder.shl(builder.zext(high[r], _SHORTS), ir.Constant(_SHORTS, [8] * LANES))
            counts = builder.or_(builder.zext(low[r], _SHORTS), upper)
            store(builder, counts, builder.gep(target, [_WORD(LANES * r)]), 2)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def reached_words(typingctx, slices, at, count, odd, indices, indices_at, limits, limits_at, words):
    """``words[r]`` = the 64 bits ``2 * h + parity <= limit`` of row r, uint64 [8].

    As ``read_counts``; ``limits``, uint8 [count + 2, 64] from ``limits_at`` on, are 255 for a bit
    1: whether there is a limit at all, then its bits from the lowest on.
    """
    place = types.intp
    signature = types.void(slices, place, place, types.uint8, indices, place, limits, place, words)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, index, limit = (
            pointer(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 4, 6)
        )
        target = pointer(context, builder, sig.args[8], args[8], _WORD(0))
        parity = as_kind(builder, _parity(builder, index, args[3]), WORDS)
        first = [words_at(builder, limit, i) for i in (1, 0)]
        found = cgutils.alloca_once_value(builder, _ternary(builder, _LESS, parity, *first))
        with cgutils.for_range(builder, args[2]) as loop:
            bound = words_at(builder, limit, builder.add(loop.index, _WORD(2)))
            slice_p = words_at(builder, source, loop.index)
            reached = _ternary(builder, _LESS, slice_p, bound, builder.load(found))
            builder.store(reached, found)
        octets = as_kind(builder, builder.load(found), BYTES)
        for r in range(ROWS):
            bits = builder.and_(octets, constant([1 << r] * LANES))
            word = builder.bitcast(builder.icmp_signed("!=", bits, constant([0] * LANES)), _WORD)
            builder.store(word, builder.gep(target, [_WORD(r)]))
        return context.get_dummy_value()

    return signature, generate
