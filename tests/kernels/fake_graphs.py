"""Captured graphs of a GPU that is none: what the library would refuse, and what goes stale."""

from itertools import zip_longest
from typing import Any

import torch
from torch.autograd.graph import get_gradient_edge

from tests.kernels.happens_before import Order, Span


def is_gathered(parameter: torch.nn.Parameter) -> bool:
    """Return True where an earlier forward pass is kept that reaches the parameter.

    Its gradient is then gathered on that pass' stream, whatever stream the next one goes to.
    """
    get_gradient_edge(parameter).node.metadata["seen"] = (
        True  # gone with the node, if none keeps it
    )
    return get_gradient_edge(parameter).node.metadata.pop("seen", False)


class Capture:
    """A capture, or a trace of the same work to be compared with one.

    Attributes:
        order: the captured operations; their races are found as everywhere.
        born: how many storages there were before it.
        trace: the operations in words, with what the host gave them; memory by its storage, or
            where it is allocated within by the order in which it is.
    """

    def __init__(
        self, origin: int, faults: list[str], born: int, generators: list[torch.Generator]
    ) -> None:
        self.order, self.born = Order(faults), born
        self.trace: list[Any] = []
        self._origin, self._streams, self._faults = origin, {origin}, faults
        self._generators = {generator._cdata for generator in generators}
        self._numbers: dict[int, int] = {}

    def wrote(self, name: str, *what: Any) -> None:
        """Add to the trace; streams by their first use."""
        count = 2 if name == "wait" else 1
        streams = [self._numbers.setdefault(s, len(self._numbers)) for s in what[:count]]
        self.trace.append((name, *streams, *what[count:]))

    def wait(self, stream: int, other: int) -> None:
        """Order the streams; one that waits for a captured one is captured too."""
        if other not in self._streams:
            self._faults.append(f"stream {stream} waits for stream {other}, which is not captured")
            return
        self._streams.add(stream)
        self.order.wait(stream, other)

    def operation(self, stream: int, name: str, reads: list[Span], writes: list[Span]) -> None:
        """Record an operation."""
        if stream not in self._streams:
            self._faults.append(f"{name} goes to stream {stream}, which is not captured")
        self.order.operation(stream, name, reads, writes)

    def check(self, name: str, arguments: list[Any]) -> None:
        """Look for what a capture forbids."""
        if name == "lift_fresh":  # torch.tensor(...)
            self._faults.append("a copy from the host within a capture")
        for value in arguments:
            if isinstance(value, torch.Generator) and value._cdata not in self._generators:
                self._faults.append(f"{name} draws from a generator that is not registered")

    def freed(self, storage: int, stream: int, number: int) -> None:
        """Note a storage that is gone: the graph must not need it."""
        if number <= self.born and self.order.uses(storage):
            self._faults.append("a capture touches memory from before it, freed within it")
        self.order.freed(storage, stream)

    def end(self) -> None:
        """Close the capture: every stream of it must be behind the one that began it."""
        for stream in sorted(self._streams):
            if not self.order.is_behind(self._origin, stream):
                self._faults.append(f"stream {stream} is not joined at the end of the capture")

    def differences(self, other: "Capture") -> list[str]:
        """Return what a replay would do otherwise than ``other``, the same work done later."""
        pairs = zip_longest(self.trace, other.trace)
        return [f"captured {one}, now {two}" for one, two in pairs if one != two]


_PRIVATE = -(1 << 62)  # no address


class Graph:
    """A captured graph: its replay is one operation that touches all that it touches."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self.generators: list[torch.Generator] = []
        self.capture: Capture | None = None
        self.foreign: set[int] = set()  # storages that it touches and has not allocated
        self.own: dict[int, int] = {}  # the numbers of those that it has allocated

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Let captured draws come from the generator."""
        self.generators.append(generator)

    def replay(self) -> None:
        """Record that the graph runs on the current stream."""
        assert self.capture is not None
        found = list(self.capture.order.accesses())
        reads, writes = (
            {self._lasting(a.span) for a in found if a.writes == kind} for kind in (False, True)
        )
        self._recorder.replayed(reads, writes, self.foreign)

    def _lasting(self, span: Span) -> Span:
        """Return the span, of memory that stays the graph's also where the host has freed it."""
        number = self.own.get(span.storage)
        if number is None or self._recorder.is_alive(span.storage, number):
            return span
        return span._replace(storage=_PRIVATE + number)
