"""The one-pass kernels of the CPU give the bits of torch's several passes."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.nn import fused
from harness.nn.binarize import binary_sign, stochastic_sign
from harness.nn.optim import LasagneAdam
from harness.nn.shift import ShiftAdaMax

SIZES = (3, 8, 40_005)  # less than a vector, one vector, three tasks and a rest
STEPS = 4
# Where torch's vectors are not of AVX2 its last elements are others, and round otherwise.
SAME_BITS = torch.backends.cpu.get_cpu_capability() == "AVX2"
BETAS = (1 - 2**-3, 1 - 2**-10)

pytestmark = pytest.mark.skipif(not fused.AVAILABLE, reason="needs numba")


def _parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.empty(n).uniform_(-1, 1, generator=generator) for n in SIZES]


def _gradients(step: int) -> list[Tensor]:
    # From epsilon's size to 10: steps that round away, and steps beyond the clip.
    generator = torch.Generator().manual_seed(step)
    sizes = [torch.empty(n).uniform_(-20, 3, generator=generator).exp2() for n in SIZES]
    return [s * torch.randn(s.shape, generator=generator) for s in sizes]


def _optimizer(kind: str, parameters: list[Tensor], clip: int) -> Any:
    groups = [{"params": [p], "lr_scale": 3.7} for p in parameters]
    optimizer: Any
    if kind == "adam":
        optimizer = LasagneAdam(groups, 0.03, (0.9, 0.999), 1e-8)
    else:
        optimizer = ShiftAdaMax(groups, 0.03, BETAS, 2**-27, stored_ap2=kind == "stored")
    optimizer.clipped_groups = clip
    return optimizer


def _run(kind: str, clip: int, steps: range, optimizer: Any = None) -> Any:
    optimizer = optimizer or _optimizer(kind, [p.requires_grad_() for p in _parameters()], clip)
    for step in steps:
        for group, gradient in zip(optimizer.param_groups, _gradients(step), strict=True):
            group["params"][0].grad = gradient
        optimizer.step()
    return optimizer


def _tensors(optimizer: Any) -> list[Tensor]:
    found = []
    for group in optimizer.param_groups:
        parameter = group["params"][0]
        state = optimizer.state[parameter]
        found += [parameter.detach(), *(torch.as_tensor(value) for value in state.values())]
    return found


@pytest.mark.parametrize("clip", [0, 3])
@pytest.mark.parametrize("kind", ["adam", "adamax", "stored"])
def test_one_pass_gives_the_bits_of_torchs_passes(
    monkeypatch: pytest.MonkeyPatch, kind: str, clip: int
) -> None:
    ours = _tensors(_run(kind, clip, range(STEPS)))
    monkeypatch.setattr(fused, "AVAILABLE", False)
    theirs = _tensors(_run(kind, clip, range(STEPS)))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other) if SAME_BITS else torch.allclose(mine, other, rtol=1e-5)
    assert (max(t.abs().max() for t in ours[::4]) <= 1) == bool(clip)


@pytest.mark.parametrize("kind", ["adam", "adamax"])
def test_each_way_goes_on_from_the_others_state(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    whole = _tensors(_run(kind, 3, range(STEPS)))
    first = _run(kind, 3, range(2))
    fresh = _optimizer(kind, [p.requires_grad_() for p in _parameters()], 3)
    with torch.no_grad():
        for new, old in zip(fresh.param_groups, first.param_groups, strict=True):
            new["params"][0].copy_(old["params"][0])
    fresh.load_state_dict(copy.deepcopy(first.state_dict()))
    monkeypatch.setattr(fused, "AVAILABLE", False)
    rest = _tensors(_run(kind, 3, range(2, STEPS), fresh))
    for mine, other in zip(whole, rest, strict=True):
        assert torch.equal(mine, other) if SAME_BITS else torch.allclose(mine, other, rtol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adamax"])
def test_threads_and_nan_change_nothing_else(kind: str) -> None:
    before = torch.get_num_threads()
    one = _tensors(_run(kind, 3, range(2)))
    torch.set_num_threads(2)
    try:
        two = _tensors(_run(kind, 3, range(2)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    optimizer = _run(kind, 3, range(1))
    parameter = optimizer.param_groups[2]["params"][0]
    parameter.grad = torch.full_like(parameter, math.nan)
    version = parameter._version
    optimizer.step()
    assert parameter.isnan().all()
    assert parameter._version > version  # autograd must see the write


def test_a_parameter_in_double_takes_torchs_way() -> None:
    parameter = torch.full((3,), 0.99, dtype=torch.float64, requires_grad=True)
    optimizer = _optimizer("adam", [parameter], 1)
    parameter.grad = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    optimizer.step()
    assert parameter.tolist() == pytest.approx([1.0, 0.99, 0.96])


def _map(layout: str) -> Tensor:
    x = torch.randn(8, 16, 24, 24, generator=torch.Generator().manual_seed(2))
    x.view(-1)[:5] = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf])
    if layout == "channels-last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return x.transpose(1, 2)
    return x[:1, :1].contiguous() if layout == "small" else x


@pytest.mark.parametrize("layout", ["rows", "channels-last", "strided"])
def test_signs_in_one_pass(layout: str) -> None:
    x = _map(layout)
    assert (fused.sign(x) is None) == (layout == "strided")
    signs = binary_sign(x)
    assert signs.stride() == x.stride()
    assert torch.equal(signs, torch.where(x >= 0, 1.0, -1.0))


@pytest.mark.parametrize("layout", ["rows", "channels-last", "strided", "small"])
def test_drawn_signs_in_one_pass(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = _map(layout)
    taken = fused.drawn_sign(x, torch.rand_like(x)) is not None
    assert taken == (layout in ("rows", "channels-last"))
    signs = stochastic_sign(x, torch.Generator().manual_seed(3))
    for form in (torch.contiguous_format, torch.channels_last):
        wanted = torch.empty_like(x).is_contiguous(memory_format=form)
        assert signs.is_contiguous(memory_format=form) == wanted
    monkeypatch.setattr(fused, "drawn_sign", lambda *operands: None)
    assert torch.equal(signs, stochastic_sign(x, torch.Generator().manual_seed(3)))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


def test_draws_in_another_order_are_left_to_the_library() -> None:
    x = torch.zeros(8, 16, 24, 24)
    draws = torch.rand_like(x).contiguous(memory_format=torch.channels_last)
    assert fused.drawn_sign(x, draws) is None
    assert fused.drawn_sign(x, draws.contiguous()) is not None
