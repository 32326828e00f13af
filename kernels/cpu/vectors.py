"""LLVM vectors by hand: what numba's intrinsics of this package are written with."""

from typing import Any

import numba
from llvmlite import binding, ir


def _features() -> dict[str, bool]:
    """Return the features of the processor that numba compiles for: this one's, or those named."""
    named: str | None = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    if not named:
        return dict(binding.get_host_cpu_features())
    return {feature[1:]: feature[0] == "+" for feature in named.split(",")}


_FEATURES = _features()
AVX512 = bool(_FEATURES.get("avx512f", False))
AVX512BW = bool(_FEATURES.get("avx512bw", False))
GFNI = bool(_FEATURES.get("gfni", False))
VPOPCNT = AVX512 and bool(_FEATURES.get("avx512vpopcntdq", False))
# Zen 5, which counts two vectors of 64 bytes a clock; of others with VP2INTERSECT none is AMD's.
WIDE_VPOPCNT = VPOPCNT and all(_FEATURES.get(name) for name in ("avx512vp2intersect", "sse4a"))
VNNI = bool(_FEATURES.get("avx512vnni", False) or _FEATURES.get("avxvnni", False))
VNNI512 = bool(_FEATURES.get("avx512vnni", False))
VBMI = bool(_FEATURES.get("avx512vbmi", False))
AMX = bool(_FEATURES.get("amx-int8", False))
AVX2 = bool(_FEATURES.get("avx2", False))


def pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of element ``index`` of a contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def splat(builder: Any, scalar: Any, kind: ir.VectorType) -> Any:
    """Return ``scalar`` in every lane of a vector."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, undefined, lanes)


def load(builder: Any, address: Any, kind: ir.VectorType, align: int) -> Any:
    """Return the vector that starts at ``address``."""
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, address: Any, align: int) -> None:
    """Write a vector from ``address`` on."""
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=align)
