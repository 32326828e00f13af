"""Triton's 8-bit tensor-core product turned into the 1-bit one, where PTX is made.

``wgmma`` on 1-bit operands takes the shared memory, descriptors and accumulators of the 8-bit form:
32 bytes of a row are 256 bits. So the kernel is written as a ``tl.dot`` of packed bytes that pass
for float8, which Triton overlaps across steps of K as it does not int8, and one instruction is
rewritten: ``m64nNk32.f32.e4m3.e4m3`` to ``m64nNk256.s32.b1.b1.and.popc``, less its two scales.

Hazard: Triton 3.6's cache does not know of the rewrite. A kernel compiled once without it would be
taken from the cache and multiply bytes as floats. Therefore a cache folder of its own,
``rewriting()`` around every launch, and ``check`` on what each launch ran.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton

_CARRIER = re.compile(
    r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k32\.f32\.e4m3\.e4m3"
    r"(\s*\{[^}]*\}\s*,[^;]*?,[^;]*?,[^;]*?)\s*,\s*1\s*,\s*1\s*;"
)
_ONE_BIT = r"wgmma.mma_async.sync.aligned.m64n\1k256.s32.b1.b1.and.popc\2;"
_LEFT = re.compile(r"\b(?:wgmma\.mma_async|mma\.sync)\S*\.(?:s8|u8|e4m3|e5m2)\S*")
_REWRITTEN = "s32.b1.b1.and.popc"
CACHE = "1-bit"  # folder below Triton's own cache
_checked: set[str] = set()


class RewriteError(RuntimeError):
    """A kernel that should multiply single bits holds 8-bit products."""


def to_one_bit(ptx: str) -> str:
    """Return PTX with every 8-bit ``wgmma`` as the 1-bit ``and.popc`` form.

    Raises:
        RewriteError: there is none, or another 8-bit product is left.
    """
    rewritten = _CARRIER.sub(_ONE_BIT, ptx)
    check_ptx(rewritten)
    return rewritten


def check_ptx(ptx: str) -> None:
    """Raise ``RewriteError`` unless all tensor-core products in ``ptx`` are of single bits."""
    left = _LEFT.search(ptx)
    if left is not None:
        raise RewriteError(f"an 8-bit product is left in a 1-bit kernel: {left.group()}")
    if _REWRITTEN not in ptx:
        raise RewriteError(f"no product {_REWRITTEN} in a 1-bit kernel")


def check(kernel: Any) -> None:
    """Raise ``RewriteError`` unless ``kernel``, what a launch returns, multiplies single bits.

    None is a launch that ``kernels.triton.ahead`` held back.
    """
    if kernel is not None and kernel.hash not in _checked:
        check_ptx(kernel.asm["ptx"])
        _checked.add(kernel.hash)


def _version() -> str:
    return hashlib.sha256(f"{_CARRIER.pattern} {_ONE_BIT}".encode()).hexdigest()


def _hook(*arguments: Any) -> tuple[str, str] | None:
    """Rewrite at the stage that makes PTX; without arguments say what goes into the cache key."""
    if not arguments:  # Triton 3.7
        return f"one-bit-{_version()}", _version()
    stages = arguments[1]
    make_ptx = stages["ptx"]
    stages["ptx"] = lambda source, metadata: to_one_bit(make_ptx(source, metadata))
    return None


def is_rewriting() -> bool:
    """Tell whether a kernel that is compiled now gets the rewrite."""
    return triton.knobs.runtime.add_stages_inspection_hook is _hook


@contextmanager
def rewriting() -> Iterator[None]:
    """Compile kernels with the rewrite, into and from a cache folder of their own.

    Sets the two knobs as values in the process: their own ``scope()`` goes through the environment,
    which costs 70 microseconds a launch.
    """
    runtime, cache = triton.knobs.runtime, vars(triton.knobs.cache)
    hook, folder = runtime.add_stages_inspection_hook, cache.get("dir")
    base = Path(triton.knobs.cache.dir)
    runtime.add_stages_inspection_hook = _hook
    cache["dir"] = str(base if base.name == CACHE else base / CACHE)
    try:
        yield
    finally:
        runtime.add_stages_inspection_hook = hook
        if folder is None:
            del cache["dir"]
        else:
            cache["dir"] = folder
