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
