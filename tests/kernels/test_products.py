"""Every kernel of the registry equals the plain reference, element by element."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import reference, registry
from kernels.base import Kernel
from kernels.packing import pack_rows
from tests.operands import OPERANDS, signs

ROWS = (0, 1, 3, 17, 100)
OUTPUTS = (1, 10, 1000)
LENGTHS = (1, 31, 32, 33, 63, 64, 65, 127, 128, 784, 1152, 4096)
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 200))


@cache
def truth(kind: str, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest operands of a kind, and their product."""
    a, w = OPERANDS[kind](max(ROWS), k, 1), OPERANDS["random"](max(OUTPUTS), k, 2)
    if kind == "one-hot":
        w = OPERANDS[kind](max(OUTPUTS), k, 3)
    return a, w, reference.gemm(a, w)


def multiply(kernel: Kernel, a: Tensor, w: Tensor) -> Tensor:
    dots = kernel.product(kernel.activations(pack_rows(a)), kernel.weights(pack_rows(w)))
    assert dots.dtype in (torch.int32, torch.float32)
    return dots.to(torch.int32)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
@pytest.mark.parametrize("kind", OPERANDS)
def test_product_equals_the_reference(kernel: Kernel, kind: str, k: int) -> None:
    a, w, expected = truth(kind, k)
    for m in ROWS:
        for n in OUTPUTS:
            dots = multiply(kernel, a[:m], w[:n])
            assert torch.equal(dots, expected[:m, :n]), f"M={m}, N={n}"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("m", [1, 7, 100])
def test_the_number_of_threads_changes_nothing(
    kernel: Kernel, set_threads: Callable[[int], None], m: int, threads: int
) -> None:
    set_threads(threads)
    a, w, expected = truth("random", 784)
    assert torch.equal(multiply(kernel, a[:m], w), expected[:m])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_dots_are_bounded_have_k_parity_and_change_sign_with_an_operand(
    kernel: Kernel, shape: tuple[int, int, int], seed: int
) -> None:
    m, n, k = shape
    a, w = signs(m, k, seed), signs(n, k, seed + 1)
    dots = multiply(kernel, a, w)
    assert torch.equal(dots, reference.gemm(a, w))
    assert int(dots.abs().max()) <= k
    assert torch.equal(dots % 2, torch.full_like(dots, k % 2))
    assert torch.equal(multiply(kernel, -a, w), -dots)
    assert torch.equal(multiply(kernel, a, -w), -dots)


def test_operands_are_left_as_they_were(kernel: Kernel) -> None:
    a, w = pack_rows(signs(9, 70, 1)), pack_rows(signs(5, 70, 2))
    before = a.words.clone(), w.words.clone()
    operands = kernel.activations(a), kernel.weights(w)
    first, again = kernel.product(*operands), kernel.product(*operands)
    assert torch.equal(first, again)
    assert torch.equal(a.words, before[0])
    assert torch.equal(w.words, before[1])


def test_real_activations_meet_the_same_dots(kernel: Kernel) -> None:
    a, w, expected = truth("random", 127)
    operand = kernel.activations_from_real(a.to(torch.float32))
    dots = kernel.product(operand, kernel.weights(pack_rows(w)))
    assert torch.equal(dots.to(torch.int32), expected)


def test_activations_from_dots_are_the_thresholds_of_the_reference(kernel: Kernel) -> None:
    generator = torch.Generator().manual_seed(5)
    a, w, _ = truth("random", 127)
    dots = kernel.product(kernel.activations(pack_rows(a)), kernel.weights(pack_rows(w)))
    threshold = torch.randint(-15, 15, (len(w),), dtype=torch.int32, generator=generator)
    flip = torch.randint(0, 2, (len(w),), generator=generator).bool()
    next_w = signs(10, len(w), 7)
    hidden = kernel.activations_from_dots(dots, threshold, flip)
    found = kernel.product(hidden, kernel.weights(pack_rows(next_w)))
    expected = reference.threshold(reference.gemm(a, w), threshold, flip)
    assert torch.equal(found.to(torch.int32), reference.gemm(expected, next_w))


def test_every_kernel_multiplies_pixels_exactly(kernel: Kernel) -> None:
    generator = torch.Generator().manual_seed(6)
    u = torch.randint(0, 256, (33, 784), dtype=torch.uint8, generator=generator)
    u[0], u[1] = 0, 255
    w = signs(10, 784, 8)
    expected = (2 * u.to(torch.int64) - 255) @ w.to(torch.int64).T
    found = kernel.on_pixels(pack_rows(w))(u)
    assert torch.equal(found.to(torch.int64), expected)


def test_wrong_operands_are_refused_by_name(kernel: Kernel) -> None:
    a, w = signs(4, 64, 1), signs(3, 65, 2)
    with pytest.raises(TypeError, match="activations must be Packed .* got Tensor"):
        kernel.activations(a)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights must be Packed .* got list"):
        kernel.weights([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"K=64|\[rows, 65\], got \[4, 64\]"):
        multiply(kernel, a, w)
    with pytest.raises(TypeError, match="got"):
        kernel.product(kernel.activations(pack_rows(a)), "weights")


def test_registry_names_its_kernels_and_each_device_has_one_baseline() -> None:
    assert all(key == (found.name, found.device) for key, found in registry.KERNELS.items())
    for device in {device for _, device in registry.KERNELS}:
        baseline = registry.baseline(device)
        assert (baseline.name, baseline.device) == ("naive", device)
    assert registry.resolve(["xnor-cpu", "all", "xnor-cpu"])[0] == "xnor-cpu"
    assert sorted(registry.resolve(["xnor-cpu", "all"])) == sorted(registry.names_on("cpu"))
    with pytest.raises(ValueError, match="no kernel 'fast' on cpu; allowed: naive, xnor-cpu"):
        registry.get("fast")
    with pytest.raises(ValueError, match=r"'xnor-cpu' on cuda \(it runs on cpu\)"):
        registry.get("xnor-cpu", "cuda")
    with pytest.raises(ValueError, match="no device 'tpu'; allowed: cpu, cuda"):
        registry.get("naive", "tpu")


@pytest.mark.parametrize("gpu", [False, True])
def test_the_device_is_the_first_that_has_all_kernels(
    gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = registry.get("naive")
    found = {("naive", "cpu"): cpu, ("naive", "cuda"): cpu, ("fast", "cuda"): cpu}
    monkeypatch.setattr(registry, "KERNELS", found | {("xnor-cpu", "cpu"): cpu})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    preferred = "cuda" if gpu else "cpu"
    assert registry.device_for(["all"]) == registry.device_for(["naive"]) == preferred
    assert registry.device_for(["naive", "xnor-cpu"]) == "cpu"
    assert registry.device_for(["naive", "fast"]) == "cuda"
    assert registry.device_for(["naive"], "cuda") == "cuda"
    with pytest.raises(ValueError, match="no device has all of xnor-cpu, fast"):
        registry.device_for(["xnor-cpu", "fast"])
    with pytest.raises(ValueError, match="no kernel 'slow'; allowed: all, naive, fast"):
        registry.device_for(["slow"])
    with pytest.raises(ValueError, match="no device 'tpu'; allowed: auto, cpu, cuda"):
        registry.device_for(["naive"], "tpu")
    with pytest.raises(ValueError, match="no kernel 'xnor-cpu' on cuda"):
        registry.device_for(["xnor-cpu"], "cuda")
