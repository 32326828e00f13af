"""Vectors of 64 bytes, or of bits, by hand: instructions of AVX-512 with VBMI and GFNI."""

# llvmlite and numba are untyped.
# mypy: disable-error-code="no-untyped-call"

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from kernels.cpu.vectors import load, store

LANES = 64
_SUM, _CARRY = 0x96, 0xE8  # truth tables of a ^ b ^ c and of the majority
_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
BYTES = ir.VectorType(_BYTE, LANES)
WORDS = ir.VectorType(_WORD, LANES // 8)


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


def ternary(builder: Any, table: int, *vectors: Any) -> Any:
    """Return the truth table's bit of each three bits: VPTERNLOGQ."""
    return _call(builder, "avx512.pternlog.q.512", WORDS, *vectors, ir.IntType(32)(table))


def as_kind(builder: Any, vector: Any, kind: Any) -> Any:
    """Return a vector as one of another kind, the same bits."""
    return vector if vector.type == kind else builder.bitcast(vector, kind)


def add_bits(builder: Any, *vectors: Any) -> tuple[Any, Any]:
    """Return the sum bits and the carries of two or three vectors of bits."""
    bits = [as_kind(builder, x, WORDS) for x in vectors]
    if len(bits) == 2:
        return builder.xor(*bits), builder.and_(*bits)
    return ternary(builder, _SUM, *bits), ternary(builder, _CARRY, *bits)


def words_at(builder: Any, address: Any, index: Any) -> Any:
    """Return the 64 bytes from ``address`` + 64 * ``index`` on, as words."""
    at = _WORD(LANES * index) if isinstance(index, int) else builder.shl(index, _WORD(6))
    return load(builder, builder.gep(address, [at]), WORDS, 8)


def keep(builder: Any, value: Any, address: Any, index: Any) -> None:
    """Write a vector to ``address`` + 64 * ``index``."""
    at = _WORD(LANES * index) if isinstance(index, int) else builder.shl(index, _WORD(6))
    store(builder, value, builder.gep(address, [at]), 8)
