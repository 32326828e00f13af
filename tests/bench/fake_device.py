"""A stand-in for ``torch.cuda``: work takes time on a clock of its own."""

from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class FakeDevice:
    """Work takes 2 ms a call; calls made while a graph is captured run on its replays alone."""

    CALL_MS = 2.0

    def __init__(self) -> None:
        self.now_ms, self.log, self.capturing = 0.0, [], False
        device = self

        class Graph:
            def __init__(self) -> None:
                self.calls = 0
                self.writes: list[Callable[[], Any]] = []

            def replay(self) -> None:
                device.log.append("replay")
                device.now_ms += self.calls * device.CALL_MS
                for write in self.writes:
                    write()

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

    def work(self, write: Callable[[], Any] = str) -> str:
        """Take the time of a call, whose replays ``write`` its result."""
        if self.graph_now is not None:
            self.graph_now.calls += 1
            self.graph_now.writes.append(write)
        else:
            self.now_ms += 100  # a launch from the host, which no sample may hold
        return "result"
