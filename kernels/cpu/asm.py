"""What the tiles of ``xnor-cpu`` cost, counted in the code that numba makes for a processor.

Nothing is run, so that the code for AVX-512 can be read on a machine without it: numba compiles
for the processor and the features that its environment names (``target_environment``).

    python -m kernels.cpu.asm icelake-server
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Features beyond those that LLVM knows by the processor's name: which tile the sources choose.
_AVX512 = "+avx2,+avx512f,+avx512bw,+avx512vl,+avx512vpopcntdq,+avx512vbmi,+gfni"
TARGETS = {"icelake-server": _AVX512, "znver4": _AVX512, "znver3": "+avx2"}
_LABEL, _JUMP = re.compile(r"^(\.LBB\w+):"), re.compile(r"^\s+j\w+\s+(\.LBB\w+)")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: how often it has each instruction, and what touches the stack.

    Attributes:
        counts: mnemonic to count.
        stack: instructions with an operand on the stack: spills.
        wide: instructions on 512-bit registers.
    """

    counts: dict[str, int]
    stack: int
    wide: int


def target_environment(cpu: str, cache: Path) -> dict[str, str]:
    """Return the environment in which numba compiles for ``cpu``, one of ``TARGETS``.

    Raises:
        ValueError: another name.
    """
    if cpu not in TARGETS:
        raise ValueError(f"no target {cpu!r}; allowed: {', '.join(TARGETS)}")
    named = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": TARGETS[cpu]}
    return os.environ | named | {"NUMBA_CACHE_DIR": str(cache)}


def innermost(assembly: str) -> list[Loop]:
    """Return the loops that hold no other, in order."""
    lines, labels, spans = assembly.splitlines(), {}, []
    for at, line in enumerate(lines):
        if found := _LABEL.match(line):
            labels[found[1]] = at
        elif (found := _JUMP.match(line)) and labels.get(found[1], at) < at:
            spans.append((labels[found[1]], at))
    inner = [
        (begin, end)
        for begin, end in spans
        if not any(begin <= other and last <= end for other, last in spans if last != end)
    ]
    return [_loop(lines[begin + 1 : end + 1]) for begin, end in inner]


def _loop(lines: list[str]) -> Loop:
    code = [line.strip() for line in lines if line.startswith("\t") and line[1:2].isalpha()]
    counts = Counter(line.split()[0] for line in code)
    return Loop(
        dict(counts), sum("(%rsp" in line for line in code), sum("%zmm" in line for line in code)
    )


def _assembly(function: Any, *arguments: Any) -> str:
    function.compile(arguments)
    (text,) = function.inspect_asm().values()
    return str(text)


def tiles() -> dict[str, Loop]:
    """Return the hot loops of all ways for the processor that numba compiles for here."""
    from numba.core import types

    from kernels.cpu import sliced, tabled, xnor
    from kernels.cpu.vectors import GFNI, VBMI

    place, words = types.intp, types.uint64[::1]
    octets, dots = types.uint8[::1], types.int32[::1]
    rows = _assembly(
        xnor.dots_rows, types.uint64[:, ::1], place, place, words, place, place, place, place,
        words, dots, dots,
    )  # fmt: skip
    count = _assembly(
        tabled.count, octets, place, types.uint8[:, :, ::1], place, octets, octets,
        types.uint16[::1],
    )  # fmt: skip
    found = {
        "popcounts": _widest(rows, "vpopcntq" if "vpopcntq" in rows else "vpshufb"),
        "tables": _widest(count, "vpshufb"),
    }
    if VBMI and GFNI:
        count = _assembly(
            sliced.count, octets, octets, place, types.int64[::1], octets, place, place, octets,
            octets, place, place,
        )  # fmt: skip
        found["slices"] = _widest(count, "vpermb")
    return found


def _widest(assembly: str, mnemonic: str) -> Loop:
    return max(innermost(assembly), key=lambda loop: loop.counts.get(mnemonic, 0))


def count_for(cpu: str, cache: Path) -> dict[str, Any]:
    """Return ``tiles`` for ``cpu``, counted in a process of its own, and ``rows`` of a tile.

    Raises:
        ValueError: no such target.
        subprocess.CalledProcessError: numba could not compile for it.
    """
    command = [sys.executable, "-m", "kernels.cpu.asm"]
    environment = target_environment(cpu, cache)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {name: Loop(**part) if name != "rows" else part for name, part in found.items()}


def _main() -> None:
    from tempfile import TemporaryDirectory

    if len(sys.argv) > 1:
        for cpu in sys.argv[1:]:
            with TemporaryDirectory() as cache:
                print(cpu, json.dumps(count_for(cpu, Path(cache)), default=vars, indent=1))
        return
    from kernels.cpu.tile import TILE_ROWS

    print(json.dumps({name: vars(loop) for name, loop in tiles().items()} | {"rows": TILE_ROWS}))


if __name__ == "__main__":
    _main()
