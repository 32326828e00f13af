"""What the compiler makes of the kernels for Hopper, counted without a GPU.

``python -m kernels.triton.sass`` compiles every tile for compute capability 9.0, disassembles it
with the tools of the triton wheel and prints registers, spills and the instructions that decide.
"""

import re
import subprocess
import tempfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.triton import onebit
from kernels.triton.builds import Build, builds

TARGET = GPUTarget("cuda", 90, 32)
_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_POINTERS = {"threshold_ptr": "*i32", "flip_ptr": "*u8", "row_ptr": "*i32", "col_ptr": "*i32"}
_ALIGNED = re.compile(r".*_ptr|.*_stride|.*_row|row_bytes")


@dataclass(frozen=True)
class Sass:
    """Disassembled machine code."""

    text: str
    registers: int
    stack_bytes: int

    @cached_property
    def opcodes(self) -> Counter[str]:
        """How often each instruction stands in the code, without its modifiers."""
        return Counter(found.partition(".")[0] for found in _OPCODE.findall(self.text))

    @property
    def wide(self) -> tuple[int, int]:
        """Reads and writes of 16 bytes a lane."""
        return self.text.count("LDG.E.128"), self.text.count("STG.E.128")

    @property
    def spills(self) -> int:
        """Accesses to local memory."""
        return self.opcodes["LDL"] + self.opcodes["STL"]


def compile_for_hopper(build: Build) -> Any:
    """Return the compiled kernel."""
    names = build.function.arg_names
    types = {
        name: "constexpr"
        if name in build.constants
        else build.pointers.get(name) or _POINTERS.get(name, "i32")
        for name in names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[name] != "constexpr" and (name in build.aligned or _ALIGNED.fullmatch(name))
    }
    source = ASTSource(build.function, types, build.constants, aligned)
    options = {"num_warps": build.warps, "num_stages": build.stages}
    options["enable_fp_fusion"] = build.fusion
    with onebit.rewriting() if build.one_bit else nullcontext():
        return triton.compile(source, target=TARGET, options=options)


def disassemble(cubin: bytes) -> Sass:
    """Return the machine code of ``cubin`` (nvdisasm) with its resources (cuobjdump)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = _run(triton.knobs.nvidia.nvdisasm.path, "-c", str(path))
        return Sass(text, *usage(path))


def usage(cubin: Path) -> tuple[int, int]:
    """Return the registers a lane and the bytes of stack, 0 without spills, of a file's kernel."""
    found = _USAGE.search(_run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)))
    assert found is not None
    return int(found[1]), int(found[2])


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


COLUMNS = (
    "POPC",
    "LOP3",
    "IADD3",
    "IMAD",
    "FFMA",
    "LDG",
    "LDGSTS",
    "UTMALDG",
    "BGMMA",
    "IGMMA",
    "QGMMA",
    "HGMMA",
)


def main() -> None:
    """Print the table."""
    head = ("kernel", "regs", "spills", "a step", *COLUMNS, "WARPGROUP")
    print(f"triton {triton.__version__}, compute capability 9.0")
    print(f"{head[0]:26}" + "".join(f"{name:>8}" for name in head[1:-1]) + f"  {head[-1]}")
    for build in builds():
        sass = disassemble(compile_for_hopper(build).asm["cubin"])
        cells = (sass.registers, sass.spills, build.words, *(sass.opcodes[c] for c in COLUMNS))
        row = "".join(f"{cell:>8}" for cell in cells)
        print(f"{build.name:26}{row}  {sass.opcodes['WARPGROUP']:>9}", flush=True)


if __name__ == "__main__":
    main()
