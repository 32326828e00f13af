"""The GPU's clock, with a stand-in for the device: everything but the CUDA calls."""

import subprocess
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from harness.bench.gpu import (
    WARM_REPLAYS,
    capture,
    copies_for,
    gpu_state,
    keep_samples,
    replay_seconds,
)


class FakeDevice:
    """Work takes 2 ms a call; calls made while a graph is captured run on its replays alone."""

    CALL_MS = 2.0

    def __init__(self) -> None:
        self.now_ms, self.log, self.capturing = 0.0, [], False
        device = self

        class Graph:
            def __init__(self) -> None:
                self.calls = 0

            def replay(self) -> None:
                device.log.append("replay")
                device.now_ms += self.calls * device.CALL_MS

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.now_ms

            def elapsed_time(self, end: "Event") -> float:
                assert device.log[-1] == "synchronize"
                return end.at - self.at

        self.CUDAGraph, self.Event = Graph, Event
        self.graph_now: Any = None

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.log.append("wait"))

    def current_stream(self) -> Any:
        return self.Stream()

    @contextmanager
    def stream(self, side: Any) -> Any:
        yield

    @contextmanager
    def graph(self, graph: Any) -> Any:
        self.graph_now = graph
        yield
        self.graph_now = None

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def work(self) -> str:
        if self.graph_now is not None:
            self.graph_now.calls += 1
        else:
            self.now_ms += 100  # a launch from the host, which no sample may hold
        return "result"


def test_samples_are_seconds_a_call_by_the_devices_events() -> None:
    device = FakeDevice()
    graph, results = capture([device.work] * 4, device)
    assert results == ["result"] * 4
    assert graph.calls == 4
    samples = replay_seconds(graph, 4, 5, device)
    assert samples == pytest.approx([0.002] * 5)
    assert device.log.count("replay") == WARM_REPLAYS + 5
    assert device.log.count("synchronize") == 1


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
