"""The code of ``xnor-cpu``'s tiles for processors with AVX-512, compiled but not run."""

import platform
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding

from kernels.cpu import asm

AVX512 = ["icelake-server", "znver4"]
# 512-bit vector units beside each other: logic and additions take either, popcounts and shuffles
# one (Ice Lake and Sapphire Rapids: ports 0 and 5; Zen 4: two halves of 256 bits each).
UNITS = 2
PRODUCTS_A_WORD = 8 * 64  # of a vector of eight 64-bit words

if platform.machine() not in ("x86_64", "AMD64"):
    pytest.skip("LLVM compiles for x86 on x86 alone here", allow_module_level=True)


@pytest.fixture(scope="module", params=list(asm.TARGETS))
def tile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    try:
        binding.Target.from_default_triple().create_target_machine(cpu=request.param)
    except RuntimeError as error:
        pytest.skip(f"LLVM has no {request.param}: {error}")
    return request.param, asm.count_for(request.param, tmp_path_factory.mktemp("cache"))


def test_two_words_of_a_row_cost_five_vector_instructions(tile: Any) -> None:
    cpu, found = tile
    if cpu not in AVX512:
        pytest.skip("no VPOPCNTQ there")
    loop, rows = found["popcounts"], found["rows"]
    for name, times in (("vpopcntq", 1), ("vpternlogq", 1), ("vpaddq", 1), ("vpxorq", 2)):
        assert loop.counts[name] == times * rows, name
    assert loop.stack == 0
    # Besides those five: weights are loaded once, and a move a row that needs no unit.
    moves = loop.counts["vmovdqu64"], loop.counts["vmovdqa64"]
    assert moves == (2, rows)
    assert loop.wide == 6 * rows + 2


def test_popcounts_reach_four_fifths_of_their_unit_and_beat_tables(tile: Any) -> None:
    cpu, found = tile
    if cpu not in AVX512:
        pytest.skip("no VPOPCNTQ there")
    loop, rows = found["popcounts"], found["rows"]
    arithmetic = sum(loop.counts[name] for name in ("vpopcntq", "vpternlogq", "vpaddq", "vpxorq"))
    products_a_clock = 2 * rows * PRODUCTS_A_WORD / (arithmetic / UNITS)
    # A popcount for each vector, one a clock, is the plain kernel's bound.
    assert products_a_clock / PRODUCTS_A_WORD == pytest.approx(0.8)
    # Tables in vectors of 64 bytes: half the shuffles of those of 32, one a clock.
    products = 4 * 64 * 8
    shuffles = found["tables"].counts["vpshufb"] / 2
    assert products / shuffles < products_a_clock / 1.5


def test_a_step_of_tables_is_a_look_up_and_an_addition(tile: Any) -> None:
    loop = tile[1]["tables"]
    assert loop.counts["vpshufb"] == loop.counts["vpaddb"] == 16  # 4 rows, 64 outputs, a byte
    assert loop.stack == loop.wide == 0


def test_four_indices_of_slices_are_look_ups_and_seven_adders(tile: Any) -> None:
    cpu, found = tile
    if cpu not in AVX512:
        assert "slices" not in found
        pytest.skip("no VPERMB there")
    loop = found["slices"]
    assert loop.counts["vpermb"] == loop.counts["vgf2p8affineqb"] == 4
    assert loop.counts["vpternlogq"] == 2 * 7
    assert loop.counts["vpxorq"] == loop.counts["vpandq"] == 1  # the half adder
    assert loop.stack == 0  # the bits of weight 16 that a step leaves have a place of their own
    products = 4 * 5 * 8 * 64
    # By count above popcounts; fused adders take both units' read ports: measured, one a clock.
    assert products / ((8 + 14 + 2) / UNITS) > 2 * 410
    assert products / (2 * 7) > 410


def test_a_tile_without_its_512_bit_registers_shows() -> None:
    text = "\n".join(
        (".LBB0_1:", "\tvmovdqu64\t(%rdi), %zmm0", ".LBB0_2:", "\tvpaddb\t32(%rsp), %ymm0, %ymm0",
         "\tjne\t.LBB0_2", "\tjne\t.LBB0_1", ".LBB0_3:", "\tdecq\t%rax", "\tjne\t.LBB0_3")
    )  # fmt: skip
    inner = asm.Loop({"vpaddb": 1, "jne": 1}, stack=1, wide=0)
    assert asm.innermost(text) == [inner, asm.Loop({"decq": 1, "jne": 1}, stack=0, wide=0)]


def test_an_unknown_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no target 'i386'; allowed: icelake-server, znver4"):
        asm.target_environment("i386", tmp_path)
