"""Cases by name, their operands, and the parts of the gate and the clock."""

import pytest
import torch

from harness.bench.cases import get_case
from harness.bench.gate import NoTimeError, check_dots
from harness.bench.measure import rounds_for
from harness.bench.operands import SAMPLED_ROWS
from harness.bench.problems import build
from harness.bench.subject import nbytes
from harness.errors import HarnessError
from kernels import registry
from kernels.cpu.kernels import XnorCpu
from kernels.packing import unpack_rows
from kernels.vendor_cuda import VendorCuda, vendor_kernels


def test_names_give_shapes() -> None:
    square = get_case("square-2048")
    assert (square.group, square.m, square.n, square.k) == ("square", 2048, 2048, 2048)
    assert square.ops == 2 * 2048**3
    assert square.includes == ("gemm", "pack+gemm", "gemm+bits")
    layer = get_case("layer-100x1024x784")
    assert (layer.group, layer.m, layer.n, layer.k) == ("layer", 100, 1024, 784)


def test_the_network_has_four_products_of_one_batch() -> None:
    mlp = get_case("mnist-mlp-4096")
    assert mlp.shapes == ((4096, 784), (4096, 4096), (4096, 4096), (10, 4096))
    assert (mlp.m, mlp.n, mlp.k, mlp.includes) == (10_000, 4096, 4096, ("network",))
    assert mlp.ops == 2 * 10_000 * (784 * 4096 + 2 * 4096**2 + 10 * 4096)


def test_a_convolution_counts_the_products_of_every_position() -> None:
    case = get_case("conv-50x32x128x256")
    assert (case.group, case.m, case.n, case.k, case.side) == ("conv", 50, 256, 1152, 32)
    assert case.ops == 2 * 50 * 32 * 32 * 256 * 1152
    assert case.includes == ("conv", "conv+bits")


@pytest.mark.parametrize("includes", ["conv", "conv+bits"])
@pytest.mark.parametrize("name", ["naive", "xnor-cpu", "vendor-int8"])
@pytest.mark.parametrize("direct", [True, False])
def test_the_convolution_is_exact_on_every_kernel(
    monkeypatch: pytest.MonkeyPatch, name: str, includes: str, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(XnorCpu, "convolution", lambda *_: None)
    problem = build(get_case("conv-5x6x20x70"))
    subject = problem.subject(registry.get(name), includes)
    if subject is None:
        assert (includes, name) in {("conv+bits", "naive"), ("conv+bits", "vendor-int8")}
        return
    dots = subject.dots(subject.run(subject.prepare(None)))
    expected = problem.expected if subject.expected is None else subject.expected
    check_dots(dots[problem.rows], expected)
    wrong = dots[problem.rows].clone()
    wrong[-1, -1] += 2
    with pytest.raises(NoTimeError):
        check_dots(wrong, expected)


@pytest.mark.parametrize("filters", [7, 8, 33])
def test_a_gpus_library_convolves_any_number_of_filters(
    monkeypatch: pytest.MonkeyPatch, filters: int
) -> None:
    monkeypatch.setattr(VendorCuda, "device", "cpu")
    problem = build(get_case(f"conv-2x4x64x{filters}"))
    int8 = next(kernel for kernel in vendor_kernels() if kernel.name == "vendor-int8")
    subject = problem.subject(int8, "conv")
    assert subject is not None
    check_dots(subject.dots(subject.run(subject.prepare(None)))[problem.rows], problem.expected)


@pytest.mark.parametrize("name", ["square", "square-2048x", "cube-8", "../square-8", ""])
def test_an_unknown_case_names_the_allowed(name: str) -> None:
    with pytest.raises(HarnessError, match=r"allowed: square-<size>, layer-.*, mnist-mlp-<hidden"):
        get_case(name)


def test_a_map_that_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(HarnessError, match="case 'conv-2x1x64x8': .* its side must be 2 or more"):
        get_case("conv-2x1x64x8")


@pytest.mark.parametrize("name", ["square-0", "square-99999", "layer-1x0x1", "mnist-mlp-0"])
def test_a_size_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match=r"a size must be within 1\.\.16384"):
        get_case(name)


@pytest.mark.parametrize(
    ("call_s", "rounds"), [(0.0, 1000), (0.1, 10), (0.4, 3), (1.0, 3), (1.1, 1), (60.0, 1)]
)
def test_rounds_are_3_to_1000_or_a_single_long_one(call_s: float, rounds: int) -> None:
    assert rounds_for(call_s, 1.0) == rounds


def test_operands_are_the_same_every_time_and_sampled_to_the_ends() -> None:
    first, again = (build(get_case("layer-150x5x65")) for _ in range(2))
    assert len(first.rows) == SAMPLED_ROWS
    assert (int(first.rows[0]), int(first.rows[-1])) == (0, 149)
    assert len(first.rows.unique()) == SAMPLED_ROWS
    assert torch.equal(first.expected, again.expected)
    small = build(get_case("layer-7x5x65"))
    assert small.rows.tolist() == list(range(7))


def test_the_network_expects_what_plain_integers_give() -> None:
    problem = build(get_case("mnist-mlp-40"))
    x = 2 * problem.pixels[problem.rows].long() - 255
    bits = []
    for w, threshold, flip in zip(problem.weights, problem.thresholds, problem.flips, strict=False):
        hidden = (x @ unpack_rows(w).long().T >= threshold) ^ flip
        bits.append(hidden.double().mean().item())
        x = 2 * hidden.long() - 1
    assert torch.equal(x @ unpack_rows(problem.weights[-1]).long().T, problem.expected.long())
    assert all(0.3 < share < 0.7 for share in bits)


@pytest.mark.parametrize("name", ["naive", "xnor-cpu", "vendor-fp32", "vendor-bf16", "vendor-int8"])
def test_the_network_is_exact_on_every_kernel(name: str) -> None:
    problem = build(get_case("mnist-mlp-70"))
    subject = problem.subject(registry.get(name), "network")
    check_dots(subject.run(subject.prepare(problem.rows)), problem.expected)


def test_kernels_that_take_floats_as_they_are_have_nothing_to_pack() -> None:
    problem = build(get_case("layer-3x5x65"))
    packing = {
        name: problem.subject(registry.get(name), "pack+gemm") is not None
        for name in registry.names_on("cpu")
    }
    assert not packing["naive"]
    assert not packing["vendor-fp32"]
    assert packing["xnor-cpu"]
    assert packing["vendor-int8"]


def test_the_gate_names_the_first_difference() -> None:
    expected = torch.tensor([[1, 3], [5, 7]], dtype=torch.int32)
    check_dots(expected.float(), expected)
    with pytest.raises(NoTimeError, match=r"1 of 4 sampled .* \[1, 0\], is 5.5, expected 5") as red:
        check_dots(expected + torch.tensor([[0, 0], [0.5, 0]]), expected)
    assert red.value.status == "wrong"
    with pytest.raises(NoTimeError, match=r"shape \[2, 1\], the reference \[2, 2\]"):
        check_dots(expected[:, :1], expected)


def test_bytes_are_counted_through_dataclasses_and_lists() -> None:
    packed = build(get_case("layer-3x5x65")).weights
    assert nbytes(packed) == 5 * 2 * 8
    assert nbytes([packed, (torch.zeros(4), None)]) == 80 + 16
