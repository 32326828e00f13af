"""The GPU's clock, with a stand-in for the device: everything but the CUDA calls."""

import subprocess
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.bench.budget import Budget
from harness.bench.cases import get_case
from harness.bench.ceilings import Bound
from harness.bench.gate import NoTimeError
from harness.bench.gpu import (
    WARM_REPLAYS,
    CaptureError,
    capture,
    copies_for,
    gpu_state,
    keep_samples,
    replay_seconds,
)
from harness.bench.measure import _measure_on_gpu, measure_ceiling
from harness.bench.problems import build
from kernels.cpu.kernels import XnorCpu
from tests.bench.fake_device import FakeDevice


def test_samples_are_seconds_a_call_by_the_devices_events() -> None:
    device = FakeDevice()
    graph, results = capture([device.work] * 4, device)
    assert results == ["result"] * 4
    assert graph.calls == 4
    samples = replay_seconds(graph, 4, 5, device)
    assert samples == pytest.approx([0.002] * 5)
    assert device.log.count("replay") == WARM_REPLAYS + 5
    assert device.log.count("synchronize") == 1


def test_a_capture_that_fails_is_told_apart() -> None:
    device = FakeDevice()

    def waits() -> None:
        if device.graph_now is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(CaptureError, match="no graph takes it: RuntimeError: operation not"):
        capture([waits], device)


class OnDevice(XnorCpu):
    """``xnor-cpu`` whose products take a call of the fake device; a set bit of ``wrong`` lies.

    ``once``: replays write no result.
    """

    def __init__(
        self, device: FakeDevice, wrong: range = range(0), once: bool = False, call_ms: float = 2.0
    ) -> None:
        self.fake, self.wrong, self.calls, self.once = device, wrong, 0, once
        device.CALL_MS = call_ms

    def product(self, a: Any, w: Any) -> torch.Tensor:
        self.calls += 1
        dots = super().product(a, w) + 2 * (self.calls in self.wrong)
        right = dots.clone()
        self.fake.work(str if self.once else lambda: dots.copy_(right))
        return dots


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    found = FakeDevice()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph", "Event"):
        monkeypatch.setattr(torch.cuda, name, getattr(found, name))
    monkeypatch.setattr(torch.cuda, "synchronize", found.synchronize)
    return found


def test_a_kernel_is_checked_then_clocked_by_replays_over_copies(
    device: FakeDevice, benchmark: Any
) -> None:
    benchmark.disabled = False
    problem, kernel, budget = build(get_case("layer-70x5x65")), OnDevice(device), Budget()
    make = partial(problem.subject, kernel, "gemm")
    found = _measure_on_gpu(make, problem, kernel, benchmark, 1.0, budget)
    assert kernel.calls == 1 + 1 + 64  # to check, before the capture, and one for each copy
    assert benchmark.stats.stats.data == pytest.approx([0.002] * 7)  # 64 calls a replay, a second
    assert budget.foreseen_s(kernel.name, kernel.device, problem.case.ops) == pytest.approx(0.002)
    assert found["bytes"] >= 70 * 2 * 8 + 70 * 5 * 4
    assert (found["copies"], found["caches"]) == (64, "warm")  # small: they stay in the L2


def unread() -> Any:
    """Return a benchmark whose samples are looked at by nobody."""
    return SimpleNamespace(_make_stats=lambda _: SimpleNamespace(update=lambda sample: None))


@pytest.mark.parametrize("wrong", [range(1, 2), range(66, 67)], ids=["at first", "last copy"])
def test_wrong_results_on_a_gpu_have_no_time(device: FakeDevice, wrong: range) -> None:
    problem, kernel = build(get_case("layer-70x5x65")), OnDevice(device, wrong)
    make = partial(problem.subject, kernel, "gemm")
    with pytest.raises(NoTimeError, match="320 of 320 sampled results differ"):
        _measure_on_gpu(make, problem, kernel, unread(), 1.0, Budget())


def test_a_result_that_replays_do_not_write_has_no_time(device: FakeDevice) -> None:
    """Memory that a right result was in may hold it still."""
    problem, kernel = build(get_case("layer-70x5x65")), OnDevice(device, once=True)
    make = partial(problem.subject, kernel, "gemm")
    with pytest.raises(NoTimeError, match="320 of 320 sampled results differ"):
        _measure_on_gpu(make, problem, kernel, unread(), 1.0, Budget())


@pytest.mark.parametrize(("call_ms", "rounds"), [(600.0, 3), (900.0, 1)])
def test_a_kernel_that_takes_beyond_its_time_is_clocked_three_times_if_it_may(
    device: FakeDevice, benchmark: Any, call_ms: float, rounds: int
) -> None:
    benchmark.disabled = False
    kernel = OnDevice(device, call_ms=call_ms)
    problem, budget = build(get_case("layer-70x5x65")), Budget()
    budget.saw(kernel.name, kernel.device, problem.case.ops, call_ms / 1000)
    make = partial(problem.subject, kernel, "gemm")
    _measure_on_gpu(make, problem, kernel, benchmark, 0.1, budget)
    assert benchmark.stats.stats.data == pytest.approx([call_ms / 1000] * rounds)


def test_a_replay_that_no_longer_fits_is_left_out(device: FakeDevice) -> None:
    """By counts it fits; the first replay says how long it takes."""
    problem, kernel = build(get_case("layer-70x5x65")), OnDevice(device)
    make = partial(problem.subject, kernel, "gemm")
    budget = Budget(100.1, 60.0, lambda: 100.0)
    with pytest.raises(NoTimeError, match=r"take 0\.1 s, 0\.1 s are left") as found:
        _measure_on_gpu(make, problem, kernel, unread(), 1.0, budget)
    assert found.value.over_budget


def test_a_bound_with_a_wrong_result_has_no_time(device: FakeDevice, benchmark: Any) -> None:
    def check() -> None:
        raise NoTimeError("wrong", "popcounts differ")

    with pytest.raises(NoTimeError, match="popcounts differ"):
        measure_ceiling(Bound(device.work, 0, 1, check), benchmark, 0.1, True)
    benchmark.disabled = False
    measure_ceiling(Bound(device.work, 0, 1), benchmark, 0.1, True)
    assert benchmark.stats.stats.data == pytest.approx([0.002] * 12)  # of BOUND_CALLS each


@pytest.mark.parametrize(
    ("operand", "copies"), [(1, 64), (1 << 22, 64), (1 << 27, 2), ((1 << 28) - 1, 2), (1 << 28, 1)]
)
def test_copies_pass_the_cache(operand: int, copies: int) -> None:
    assert copies_for(operand) == copies


def test_samples_reach_pytest_benchmark(benchmark: Any) -> None:
    benchmark.disabled = False
    keep_samples(benchmark, [0.1, 0.3, 0.2])
    assert benchmark.stats.stats.data == [0.1, 0.3, 0.2]
    assert benchmark.stats.stats.median == 0.2


def test_the_state_is_read_from_nvidia_smi() -> None:
    def run(command: list[str], **options: Any) -> Any:
        assert command[0] == "nvidia-smi"
        assert not any(flag.startswith(("-lgc", "-pl", "-ac", "-r")) for flag in command)
        return SimpleNamespace(stdout="1980, 2619, 1980, 41, 310.5, 700.0, 99\n")

    state = gpu_state(run)
    assert state is not None
    assert (state["clocks.sm"], state["temperature.gpu"], state["power.draw"]) == (
        *("1980", "41", "310.5"),
    )


@pytest.mark.parametrize(
    "error", [FileNotFoundError("nvidia-smi"), subprocess.CalledProcessError(9, "nvidia-smi")]
)
def test_without_nvidia_smi_there_is_no_state(error: Exception) -> None:
    def run(command: list[str], **options: Any) -> Any:
        raise error

    assert gpu_state(run) is None


@pytest.mark.parametrize("said", ["", "No devices were found\n", "1980, 2619\n"])
def test_an_answer_of_another_form_is_no_state(said: str) -> None:
    assert gpu_state(lambda command, **options: SimpleNamespace(stdout=said)) is None
