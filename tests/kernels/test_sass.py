"""The GPU kernels compiled for Hopper without a GPU: what stands in the machine code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest import MonkeyPatch

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from kernels.triton import (
    builds,
    dot,
    onebit,
    outer,
    peaks,
    pixel_maps,
    sass,
    update,
    update_product,
)

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

BUILDS = {build.name: build for build in sass.builds()}
FORMS = {"popc": (1, 1, 0), "csa3": (2, 1.5, 1), "csa7": (4, 2, 2)}
BITS = [name for name, build in BUILDS.items() if build.one_bit]
E4M3 = "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {%r1,%r2}, %rd1, %rd2, %p1, 1, 1;"
ONE_BIT = "wgmma.mma_async.sync.aligned.m64n64k256.s32.b1.b1.and.popc {%r1,%r2}, %rd1, %rd2, %p1;"


@pytest.fixture(scope="module", autouse=True)
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile afresh: what an earlier run left in the cache must not answer."""
    patch = MonkeyPatch()
    patch.setattr(triton.knobs.cache, "dir", str(tmp_path_factory.mktemp("triton")))
    yield
    patch.undo()


def machine_code(name: str) -> sass.Sass:
    return sass.disassemble(sass.compile_for_hopper(BUILDS[name]).asm["cubin"])


@pytest.mark.parametrize("name", [name for name in BUILDS if name.split()[0] in FORMS])
def test_a_word_costs_as_many_instructions_as_counted(name: str) -> None:
    form = name.split()[0]
    code, tile = machine_code(name), outer.TILES[form][0]
    words_a_popc, lop3, more = FORMS[form]
    words = BUILDS[name].words
    outputs = words // tile.unroll
    assert code.opcodes["POPC"] == words // words_a_popc + more * outputs
    packing = 4 * outputs if name.endswith("bits") else 0
    assert lop3 * words <= code.opcodes["LOP3"] <= 1.1 * lop3 * words + packing
    assert (code.spills, code.stack_bytes) == (0, 0)


@pytest.mark.parametrize("packed", [False, True], ids=["int32", "bits"])
@pytest.mark.parametrize(
    ("form", "tile"),
    [(form, tile) for form, tiles in outer.TILES.items() for tile in tiles],
    ids=str,
)
def test_words_are_read_by_the_lanes_that_use_them(
    form: str, tile: outer.Tile, packed: bool
) -> None:
    build = builds.outer_build(form, tile, packed)
    code = sass.disassemble(sass.compile_for_hopper(build).asm["cubin"])
    body = loop_of(code.text)
    rows = tile.m // tile.groups  # of a lane, beside four columns
    reads = {"LDG.E.128": tile.unroll * (1 + rows // 4), "LDG.E.64": tile.unroll * (rows == 2)}
    assert {opcode: body.count(opcode) for opcode in reads} == reads
    assert body.count("LDG") == sum(reads.values())
    assert not re.search(r"\b(?:BAR|STS|LDS|LDSM|LDL|STL)\b", body)
    assert (code.spills, code.stack_bytes) == (0, 0)


@pytest.mark.parametrize("name", BITS)
def test_single_bits_on_tensor_cores_run_on_without_waiting(name: str) -> None:
    code = machine_code(name)
    assert code.opcodes["BGMMA"] >= (2 if name.startswith("conv") else 4)
    assert ".AND.POPC" in code.text
    assert not {"IGMMA", "QGMMA", "HGMMA", "IMMA", "QMMA", "BMMA"} & set(code.opcodes)
    # One arrive and two waits; ptxas that serialises the products adds a pair to each.
    assert code.opcodes["WARPGROUP"] <= (6 if name.startswith("peak") else 3)
    assert (code.spills, code.stack_bytes) == (0, 0)
    assert code.registers <= 255
    assert bool(code.opcodes["UTMALDG"]) == name.startswith("tma")


def loop_of(text: str) -> str:
    """Return what stands between the target of the last branch back that has products and it."""
    loops = re.findall(r"^(\.L_x_\d+):\n(.*?BRA `\(\1\))", text, re.MULTILINE | re.DOTALL)
    return str(loops[0][1])


def test_the_peak_of_single_bits_is_a_loop_of_products_alone() -> None:
    (name,) = (name for name in BITS if name.startswith("peak"))
    tile, code = peaks.TILE, machine_code(name)
    body = loop_of(code.text)
    products = peaks.UNROLL * tile.bytes // 32  # of 64 x 256 x 256 bits, a warpgroup
    assert body.count("BGMMA.64x256x256.AND.POPC") == products
    assert code.opcodes["BGMMA"] == products + tile.bytes // 32  # and one tile before the loop
    # No operand is fetched or stored again, and there is a wait only after a whole tile.
    assert not re.search(r"\b(?:LDG|LDGSTS|LDS|STS|STG|BAR|UTMALDG)\b", body)
    assert body.count("WARPGROUP.ARRIVE") == peaks.UNROLL
    assert body.count("WARPGROUP.DEPBAR") <= peaks.UNROLL


@pytest.mark.parametrize(("form", "opcode"), [("popc", "POPC"), ("lop3", "LOP3")])
def test_the_peaks_of_words_keep_every_step(form: str, opcode: str) -> None:
    name = f"peak {form} {peaks.LANES}"
    code, steps = machine_code(name), BUILDS[name].words
    body = loop_of(code.text)
    assert steps <= body.count(f" {opcode}") <= 1.1 * steps
    assert not re.search(r"\b(?:LDG|LDS|STS|STG|BAR|LDL|STL)\b", body)
    assert (code.spills, code.stack_bytes) == (0, 0)
    other = {"POPC": "LOP3", "LOP3": "POPC"}[opcode]
    assert body.count(f" {other}") <= (1.25 * steps if form == "popc" else 0)


def test_the_int8_kernel_is_not_rewritten() -> None:
    (name,) = (name for name in BUILDS if name.startswith("int8"))
    code = machine_code(name)
    assert code.opcodes["IGMMA"] >= 4
    assert not code.opcodes["BGMMA"]
    assert code.spills == 0


SMALL = {
    "pack float32": "FSETP", "naive 16x16": "FFMA", "naive-xnor 16x16": "POPC",
    "drop": "FSETP", "drop pieces": "FADD", "join": "FADD", "fetch": "I2FP", "hinge": "FFMA",
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_small_kernels_spill_nothing(name: str) -> None:
    code = machine_code(name)
    assert code.spills == 0
    assert code.opcodes[SMALL[name]] >= 1


@pytest.mark.parametrize("name", ["drop", "drop pieces", "join"])
def test_dropout_reads_16_bytes_a_lane(name: str) -> None:
    code = machine_code(name)
    assert code.wide[0] == code.opcodes["LDG"]


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("update")])
def test_a_step_moves_16_bytes_a_lane_and_leaves_room_for_other_programs(name: str) -> None:
    code = machine_code(name)
    blocks = update.BLOCK // (4 * 32 * update.WARPS)  # of four elements a lane
    reads, writes = code.wide  # gradient and its pieces, weight, moments; weight, moments
    assert (reads >= 5 * blocks, writes) == (True, 3 * blocks)
    assert code.opcodes["LDG"] <= reads + 4  # and the plan
    assert code.opcodes["STG"] == 4 * blocks  # and the signs, 8 bytes
    assert not {"STS", "BAR"} & set(code.opcodes)
    assert (code.spills, code.stack_bytes) == (0, 0)
    assert code.registers <= 64  # half of a processor's threads
    assert not {"CALL", "FCHK"} & set(code.opcodes)  # IEEE's division


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("product-update")])
def test_a_step_reads_before_its_product_and_moves_the_gradient_alone(name: str) -> None:
    kernel, tile = sass.compile_for_hopper(BUILDS[name]), update_product.TILE
    code = sass.disassemble(kernel.asm["cubin"])
    reads = tile.n * tile.k // (4 * 32 * tile.warps)  # of four weights a lane
    assert code.wide == (3 * reads, 3 * reads)
    assert code.text.partition("HGMMA")[0].count("LDG.E.128") == 3 * reads  # before the product
    assert code.opcodes["STG"] == 4 * reads  # and the signs, 8 bytes
    assert code.opcodes["STS"] == reads  # of the gradient, once
    assert code.opcodes["HGMMA"] == 2 * tile.b // 16  # two pieces
    assert "HMMA" not in code.opcodes
    assert code.opcodes["WARPGROUP"] <= 4  # an arrive and a wait a piece: none serialised
    assert not {"CALL", "FCHK"} & set(code.opcodes)
    assert (code.spills, code.stack_bytes) == (0, 0)
    # Four programs a processor, and 1 KiB of shared memory that each is charged.
    assert code.registers * 32 * tile.warps * 4 <= 65536
    assert 4 * (kernel.metadata.shared + 1024) <= 228 * 1024


def test_signs_are_read_16_bytes_a_lane() -> None:
    code = machine_code("sign")
    assert code.wide[0] == code.opcodes["LDG"] == update.BLOCK // (4 * 32 * update.WARPS)
    assert (code.spills, code.stack_bytes) == (0, 0)


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("norm")])
def test_batch_norm_reads_16_bytes_at_once_and_spills_nothing(name: str) -> None:
    code = machine_code(name)
    assert (code.spills, code.stack_bytes) == (0, 0)
    # Two programs of 8 warps, or four of 4, on a processor; three where AP2 of xhat is kept too.
    assert code.registers <= (168 if name == "norm-shift-backward strip" else 128)
    narrow = 4 if name.endswith("windows") else 0  # of gradients in float16, and winners
    assert code.wide[0] >= 5
    assert code.opcodes["LDG"] <= code.wide[0] + 2 * narrow
    assert not {"ATOM", "ATOMG", "RED", "REDG"} & set(code.opcodes)


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("maps")])
def test_convolutions_of_a_step_run_on_without_waiting(name: str) -> None:
    code = machine_code(name)
    assert code.opcodes["HGMMA"] >= 4
    assert not {"HMMA", "LDL", "STL"} & set(code.opcodes)
    assert (code.spills, code.stack_bytes) == (0, 0)
    assert code.opcodes["WARPGROUP"] <= (6 if "filters" in name else 3)
    # Operands come 16 bytes a lane, past the registers.
    assert code.opcodes["LDGSTS"] == len(re.findall(r"LDGSTS\S*\.128", code.text)) > 0


@pytest.mark.parametrize("name", [name for name in BUILDS if name.startswith("pixel-maps")])
def test_convolutions_of_pixels_wait_once_a_product(name: str) -> None:
    code = machine_code(name)
    assert code.opcodes["HGMMA"] >= 4
    assert not {"HMMA", "LDGSTS"} & set(code.opcodes)
    assert (code.spills, code.stack_bytes) == (0, 0)
    assert code.registers <= 128  # two programs of 8 warps, or four of 4, on a processor
    assert code.opcodes["WARPGROUP"] <= (4 if "reals" in name else 2)  # an arrive, a wait
    # Gradients and dots 16 bytes a lane.
    reads = pixel_maps.STEP * pixel_maps.MAPS // (8 * 32 * pixel_maps.STEP_WARPS)
    writes = pixel_maps.POSITIONS * pixel_maps.MAPS // (4 * 32 * pixel_maps.WARPS)
    assert code.wide == ((reads, 0) if "filters" in name else (0, writes))


def test_the_rewrite_changes_the_instruction_and_nothing_else() -> None:
    assert onebit.to_one_bit(f"mov;\n{E4M3}\nadd;") == f"mov;\n{ONE_BIT}\nadd;"
    with pytest.raises(onebit.RewriteError, match="no product"):
        onebit.to_one_bit("mov;")
    with pytest.raises(onebit.RewriteError, match="8-bit product is left .*s8.s8"):
        onebit.to_one_bit(E4M3 + "\nwgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {};")
    with pytest.raises(onebit.RewriteError, match="left in a 1-bit kernel: mma.sync"):
        onebit.check_ptx(ONE_BIT + " mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {};")


def test_a_kernel_left_in_the_cache_without_the_rewrite_is_not_taken() -> None:
    """The hazard: Triton 3.6 keys its cache without the hook that rewrites."""
    build = builds.dot_build("bits", dot.TILES[-1], False)
    plain: Any = sass.compile_for_hopper(
        sass.Build(**{**vars(build), "one_bit": False, "name": "as floats"})
    )
    assert "e4m3.e4m3" in plain.asm["ptx"]
    with pytest.raises(onebit.RewriteError, match="left in a 1-bit kernel"):
        onebit.check(plain)
    folder = Path(triton.knobs.cache.dir)
    with onebit.rewriting():
        assert Path(triton.knobs.cache.dir) == folder / onebit.CACHE
    assert triton.knobs.runtime.add_stages_inspection_hook is None
    assert Path(triton.knobs.cache.dir) == folder
    onebit.check(sass.compile_for_hopper(build))
    again: Any = sass.compile_for_hopper(build)  # from the cache
    assert "b1.b1.and.popc" in again.asm["ptx"]
    assert "e4m3.e4m3" not in again.asm["ptx"]


def test_the_knobs_are_as_before_also_after_an_error(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.delitem(vars(triton.knobs.cache), "dir")
    before = triton.knobs.cache.dir
    with pytest.raises(RuntimeError, match="broken"), onebit.rewriting():
        assert triton.knobs.runtime.add_stages_inspection_hook is not None
        raise RuntimeError("broken")
    assert triton.knobs.cache.dir == before
    assert "dir" not in vars(triton.knobs.cache)
    assert triton.knobs.runtime.add_stages_inspection_hook is None


@pytest.mark.parametrize("form", outer.TILES)
def test_tiles_are_valid_and_go_from_large_to_small(form: str) -> None:
    tiles = outer.TILES[form]
    assert all(outer.is_valid(tile) for tile in (*tiles, outer.INTERPRETED_TILE))
    sizes = [tile.m * tile.n for tile in tiles]
    assert sizes == sorted(sizes, reverse=True)


def test_invalid_tiles_are_told() -> None:
    assert all(dot.is_valid(tile) for tile in (*dot.TILES, dot.INTERPRETED_TILE))
    good = dot.TILES[0]
    wrong = [{"m": 32}, {"n": 40}, {"bytes": 96}, {"warps": 2}, {"n": 512}, {"stages": 8}]
    assert not any(dot.is_valid(good._replace(**change)) for change in wrong)
    assert not outer.is_valid(outer.Tile(16, 512, 1, 8))
    assert not outer.is_valid(outer.Tile(16, 48, 4, 8))
