"""What the compiler makes of the kernels for Hopper, counted without a GPU.

``python -m kernels.triton.sass`` compiles every tile for compute capability 9.0, disassembles it
with the tools of the triton wheel and prints registers, spills and the instructions that decide.
"""

import re
import subprocess
import tempfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.triton import (
    conv,
    dot,
    naive,
    norm,
    norm_backward,
    onebit,
    outer,
    pack,
    rules,
    tma,
    update,
)

TARGET = GPUTarget("cuda", 90, 32)
_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_POINTERS = {"threshold_ptr": "*i32", "flip_ptr": "*u8", "row_ptr": "*i32", "col_ptr": "*i32"}
_ALIGNED = re.compile(r".*_ptr|.*_stride|.*_row|row_bytes|c|size")


@dataclass(frozen=True)
class Build:
    """A kernel at one tile.

    Attributes:
        name: kernel, tile and output.
        function: the jit function.
        pointers: types of pointers and floats; what is left out is int32.
        constants: its constexpr arguments.
        warps: of a program.
        stages: steps in flight.
        words: words times outputs of a thread in a step of the loop (0: not counted by words).
        one_bit: compiled with the rewrite to single bits.
        fusion: a product and a sum may become one rounded operation.
    """

    name: str
    function: Any
    pointers: dict[str, str]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    words: int = 0
    one_bit: bool = field(default=False)
    fusion: bool = True


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
        if _ALIGNED.fullmatch(name)
    }
    source = ASTSource(build.function, types, build.constants, aligned)
    options = {"num_warps": build.warps, "num_stages": build.stages}
    options["enable_fp_fusion"] = build.fusion
    with onebit.rewriting() if build.one_bit else nullcontext():
        return triton.compile(source, target=TARGET, options=options)


def disassemble(cubin: bytes) -> Sass:
    """Return the machine code of ``cubin`` (nvdisasm) with its resources (cuobjdump)."""
    tools = triton.knobs.nvidia
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = _run(tools.nvdisasm.path, "-c", str(path))
        usage = _USAGE.search(_run(tools.cuobjdump.path, "-res-usage", str(path)))
    assert usage is not None
    return Sass(text, int(usage[1]), int(usage[2]))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def outer_build(form: str, tile: outer.Tile, packed: bool) -> Build:
    """Return a build of ``outer``."""
    pointers = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), "*i32")
    constants = {"FORM": form, "PACKED": packed, "NATIVE": True, "M": tile.m, "N": tile.n}
    words = tile.m * tile.n // (32 * tile.warps) * tile.unroll
    return Build(
        f"{form} {tile.m}x{tile.n} {'bits' if packed else 'int32'}",
        outer._product,
        pointers,
        constants | {"UNROLL": tile.unroll},
        tile.warps,
        words=words,
    )


def dot_build(way: str, tile: dot.Tile, packed: bool) -> Build:
    """Return a build of ``dot``: ``bits`` as ``xnor-tensor`` runs it, or ``int8``."""
    one_bit = way == "bits"
    carrier = "*fp8e4nv" if one_bit else "*i8"
    scales = {"SCALE": 4, "ROW_SCALE": -2, "COL": True} if one_bit else {"SCALE": 1, "ROW_SCALE": 0}
    constants = {"COL": False, "WAY": way, "PACKED": packed, "GROUP": dot.GROUP, **scales}
    return Build(
        f"{way} {tile.m}x{tile.n}x{tile.bytes} {'bits' if packed else 'int32'}",
        dot._product,
        {"a_ptr": carrier, "b_ptr": carrier, "out_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=one_bit,
    )


def tma_build(tile: dot.Tile, packed: bool) -> Build:
    """Return a build of ``tma``."""
    kind = "tensordesc<fp8e4nv[{}, {}]>"
    pointers = {
        "a_desc": kind.format(tile.m, tile.bytes),
        "b_desc": kind.format(tile.n, tile.bytes),
    }
    constants = {"WAY": "bits", "SCALE": 4, "ROW_SCALE": -2, "PACKED": packed, "GROUP": dot.GROUP}
    return Build(
        f"tma {tile.m}x{tile.n}x{tile.bytes} {'bits' if packed else 'int32'}",
        tma._product,
        pointers | {"out_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=True,
    )


def conv_build(tile: dot.Tile, pool: bool) -> Build:
    """Return a build of the convolution of 128 channels to pooled bits, or to int32."""
    pointers = {"map_ptr": "*fp8e4nv", "filter_ptr": "*fp8e4nv", "out_ptr": "*i32"}
    constants = {"WAY": "bits", "POOL": pool, "PACKED": pool, "CHANNEL_BYTES": 16}
    return Build(
        f"conv {tile.m}x{tile.n}x{tile.bytes} {'pooled' if pool else 'int32'}",
        conv._conv,
        pointers | {"ones_ptr": "*i32", "table_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=True,
    )


def pack_build() -> Build:
    """Return a build of packing float32 rows that lie in order, with popcounts."""
    pointers = {"x_ptr": "*fp32", "words_ptr": "*i32", "ones_ptr": "*i32"}
    constants = {"MODE": "sign", "COUNT": True, "ROWS": pack.ROWS, "WORDS": pack.WORDS}
    return Build(
        "pack float32", pack._pack, pointers, constants | {"x_col": 1, "words_col": 1}, pack.WARPS
    )


_STEP = {"signs_ptr": "*bf16", "at_ptr": "*i64"} | dict.fromkeys(
    ("parameter_ptr", "gradient_ptr", "m_ptr", "v_ptr", "plan_ptr"), "*fp32"
)
_NUMBERS = dict.fromkeys(rules.Rule._fields[1:], "fp32")


def update_build(rule: str) -> Build:
    """Return a build of a step of the optimizer over memory, with the signs."""
    constants = {"RULE": rule, "NUMBERS": rules.RATES[rule], "SIGNS": True, "BLOCK": update.BLOCK}
    return Build(f"update {rule}", update._update, _STEP | _NUMBERS, constants, update.WARPS)


def sign_build() -> Build:
    """Return a build of the signs of float32 in bfloat16."""
    pointers = {"x_ptr": "*fp32", "out_ptr": "*bf16"}
    return Build("sign", update._sign, pointers, {"BLOCK": update.BLOCK}, update.WARPS)


def naive_build(xnor: bool) -> Build:
    """Return a build of ``naive`` or ``naive-xnor``."""
    kind = "*i32" if xnor else "*fp32"
    constants = {"XNOR": xnor, "BITS": False, "TILE": naive.TILE}
    pointers = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), kind)
    name = "naive-xnor" if xnor else "naive"
    return Build(f"{name} 16x16", naive._naive, pointers, constants, naive.WARPS, words=1)


def norm_builds() -> list[Build]:
    """Return batch norm and sign, forward and backward, in one launch and in two."""
    forward, backward = {"STOCHASTIC": True}, {"GATED": True}
    pieces = {"PIECES": norm_backward.MOST_PIECES, "NATIVE": True}
    merged = {"BLOCKS": norm.MOST_BLOCKS}
    found = []
    for name, function, constants in (
        ("norm strip", norm._strip, forward),
        ("norm statistics", norm._statistics, {}),
        ("norm signs", norm._normalise, forward | merged),
        ("norm-backward strip", norm_backward._strip, backward | pieces),
        ("norm-backward sums", norm_backward._sums, backward),
        ("norm-backward gradient", norm_backward._gradient, backward | pieces | merged),
    ):
        tile = norm.BLOCK
        if name.endswith("strip"):
            tile = norm.Tile(norm.STRIP_ROWS, norm.STRIP_COLS, norm.STRIP_WARPS)
        types = {name: "*fp32" for name in function.arg_names if name.endswith("_ptr")}
        types |= {"d_dots_ptr": "*bf16", "signs_ptr": "*bf16", "scale": "fp32", "eps": "fp32"}
        shape = {"ROWS": tile.rows, "COLS": tile.cols}
        found.append(Build(name, function, types, constants | shape, tile.warps, fusion=False))
    return found


def builds() -> list[Build]:
    """Return every kernel at its largest tile, and the 1-bit product to bits at every tile."""
    found = [pack_build(), naive_build(False), naive_build(True), sign_build()]
    found += [update_build(rule) for rule in rules.RATES]
    for packed in (False, True):
        found += [outer_build(form, tiles[0], packed) for form, tiles in outer.TILES.items()]
        found += [dot_build("bits", tile, packed) for tile in dot.TILES if packed or tile.n > 128]
    for packed in (False, True):
        found += [tma_build(dot.TILES[0], packed), conv_build(conv.TILE, packed)]
    return [*found, *norm_builds(), dot_build("int8", dot.TILES[1], False)]


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
