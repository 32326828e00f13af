"""Streams, events and graphs of a GPU that is none: who does what, in which order, on which memory.

``Recorder`` stands in for ``torch.cuda``. It sees each operation of torch and, by
``WatchedDriver``, each launch of Triton, together with the stream that it goes to;
``happens_before.Order`` finds races. Operations of torch run on the CPU, launches compute nothing,
new memory holds ones.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.kernels.fake_graphs import Capture, Graph
from tests.kernels.happens_before import Order, Span, span

# Operations whose result the host reads, or whose result's size.
WAITING = (
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive",
)  # fmt: skip
# Those of a library, which gives each stream scratch memory of its own.
PRODUCTS = ("mm", "addmm", "bmm", "convolution", "convolution_backward")
PRIORITIES = (0, -1, -2, -3)  # of torch's streams
POOL = 32  # streams of a priority that torch makes; then it gives the first again


class Birth(NamedTuple):
    """A storage: how to tell that it is gone, its stream, and its number in order of birth."""

    weak: StorageWeakRef
    stream: int
    number: int


class Stream:
    """A stream of the recorder, by its number; 0 is the default stream."""

    def __init__(self, recorder: "Recorder", index: int) -> None:
        self.recorder, self.index = recorder, index

    def wait_stream(self, other: "Stream") -> None:
        """Let what comes on this stream wait for what the other one has been given."""
        caller = sys._getframe(1)
        self.recorder.wait(self, other, f"{caller.f_code.co_filename}:{caller.f_lineno}")


class Recorder(TorchDispatchMode):
    """What of ``torch.cuda`` a training step takes; as a mode, it records torch's operations.

    Attributes:
        faults: what was found wrong, in words.
        sites: the source lines that let a stream wait.
        dropped: of these, those whose waits are left out.
        pool: how many streams of a priority there are.
        order: the operations outside of a capture.
        capture: the capture under way, or None.
    """

    def __init__(self, dropped: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.sites: set[str] = set()
        self.dropped = dropped
        self.order = Order(self.faults)
        self.capture: Capture | None = None
        self.pool = dict.fromkeys(PRIORITIES, POOL)
        self._streams = [Stream(self, 0)]
        self._current = list(self._streams)
        self._given: dict[int, list[Stream]] = {priority: [] for priority in PRIORITIES}
        self._births: dict[int, Birth] = {}
        self._born = 0
        self._traces: list[Capture] = []

    # What the step calls.

    def Stream(self, priority: int = 0) -> Stream:
        given, size = self._given[priority], self.pool[priority]
        if len(given) < size:
            self._streams.append(Stream(self, len(self._streams)))
        given.append(self._streams[-1] if len(given) < size else given[-size])
        return given[-1]

    def current_stream(self) -> Stream:
        return self._current[-1]

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._current.append(stream)
        try:
            yield
        finally:
            self._current.pop()

    def CUDAGraph(self) -> Graph:
        return Graph(self)

    @contextmanager
    def graph(self, graph: Graph, stream: Stream) -> Iterator[None]:
        """Record what comes into ``graph``, after a wait for the whole device."""
        for each in self._streams:
            self.order.host_waits(each.index)
        with self.stream(stream), self.traced(graph.generators) as capture:
            self.capture = capture
            yield
            self.sweep()
            self.capture = None
            capture.end()
        graph.capture = capture
        old = {s for s, birth in self._births.items() if birth.number <= capture.born}
        graph.foreign = {a.span.storage for a in capture.order.accesses()} & old
        graph.own = {s: birth.number for s, birth in self._births.items() if s not in old}

    @contextmanager
    def traced(self, generators: list[torch.Generator] | None = None) -> Iterator[Capture]:
        """Write down what comes, as a capture would, to be compared with one."""
        trace = Capture(self.current_stream().index, self.faults, self._born, generators or [])
        self._traces.append(trace)
        try:
            yield trace
        finally:
            self._traces.remove(trace)

    # What is recorded.

    def wait(self, stream: Stream, other: Stream, site: str) -> None:
        self.sites.add(site)
        if site in self.dropped:
            return
        self.sweep()
        for trace in self._traces:
            trace.wrote("wait", stream.index, other.index)
        if self.capture:
            self.capture.wait(stream.index, other.index)
        else:
            self.order.wait(stream.index, other.index)

    def operation(
        self, stream: int, name: str, reads: list[Tensor], writes: list[Tensor],
        arguments: list[Any],
    ) -> None:  # fmt: skip
        """Record that an operation goes to a stream."""
        for trace in self._traces:
            trace.wrote(name, stream, *(self._shown(trace, x) for x in arguments))
        spans = [[found for t in ts if (found := span(t))] for ts in (reads, writes)]
        if name in PRODUCTS:
            spans[1].append(Span(~stream, 0, 1))
        if self.capture:
            self.capture.operation(stream, name, *spans)
        else:
            self.order.operation(stream, name, *spans)

    def replayed(self, reads: set[Span], writes: set[Span], foreign: set[int]) -> None:
        """Record a graph's replay; ``foreign`` are the storages that it did not allocate."""
        self.sweep()
        for storage in foreign - set(self._births):
            self.faults.append(f"a replay touches memory that was freed, storage {storage:#x}")
        self.order.operation(self.current_stream().index, "a replay", reads, writes)

    def host_waits(self, name: str) -> None:
        """Note that the host reads what the current stream computes."""
        if self.capture:
            self.faults.append(f"the host waits for {name} within a capture")
        else:
            self.order.host_waits(self.current_stream().index)

    def is_alive(self, storage: int, number: int) -> bool:
        """Tell whether the storage is still the one that was born as ``number``."""
        birth = self._births.get(storage)
        return birth is not None and birth.number == number and not birth.weak.expired()

    def sweep(self) -> None:
        """Find the storages that are gone by now."""
        for storage, birth in list(self._births.items()):
            if not birth.weak.expired():
                continue
            self.order.freed(storage, birth.stream)
            if self.capture:
                self.capture.freed(storage, birth.stream, birth.number)
            del self._births[storage]

    def know(self, tensors: list[Tensor], stream: int) -> None:
        """Note the storages that are new; what comes from before the mode is the default's."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._births:
                self._born += 1
                self._births[storage._cdata] = Birth(StorageWeakRef(storage), stream, self._born)

    def _shown(self, trace: Capture, value: Any) -> Any:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()._cdata
            number = self._births[storage].number
            place = ("new", number - trace.born) if number > trace.born else ("old", storage)
            return (*place, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype)
        return value._cdata if isinstance(value, torch.Generator) else repr(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        self.sweep()
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.know(given, 0)
        before = {tensor.untyped_storage()._cdata for tensor in given}
        result = func(*args, **kwargs)
        returned = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        new = [t for t in returned if t.untyped_storage()._cdata not in before]
        stream = self.current_stream().index
        self.know(new, stream)
        name = func._schema.name.removeprefix("aten::")
        reads, writes = _touched(func, args, kwargs, result, new)
        arguments = tree_leaves((args, kwargs))
        self.operation(stream, name, reads, writes, arguments)
        if name.startswith(("empty", "new_empty")):
            result.fill_(1)
        if name in WAITING or _by_mask(name, given):
            self.host_waits(name)
        if self.capture:
            self.capture.check(name, arguments)
        return result


def install(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Let ``torch.cuda`` be the recorder, and copies to the host show where a capture forbids them.

    All tensors lie on the CPU, where such a copy is none.
    """
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        patch.setattr(torch.cuda, name, getattr(recorder, name))
    for name in ("cpu", "numpy", "tolist"):
        patch.setattr(Tensor, name, _noted(recorder, name))


def _noted(recorder: Recorder, name: str) -> Any:
    method = getattr(Tensor, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        recorder.host_waits(name)
        return method(*args, **kwargs)

    return call


def _by_mask(name: str, given: list[Tensor]) -> bool:
    return name.startswith("index") and any(x.dtype == torch.bool for x in given[1:])


def _touched(
    func: Any, args: Any, kwargs: Any, result: Any, new: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors that an operation of torch reads and writes, by its schema."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    aliases = [r.alias_info for r in schema.returns]
    views = bool(aliases) and all(a is not None and not a.is_write for a in aliases)
    if views or name.startswith(("empty", "new_empty")) or name == "_unsafe_view":
        return [], []
    given = [*args, *([None] * (len(schema.arguments) - len(args)))]
    reads, writes = [], list(new)
    for argument, value in zip(schema.arguments, given, strict=True):
        value = kwargs.get(argument.name, value)
        tensors = [x for x in tree_leaves(value) if isinstance(x, Tensor)]
        written = argument.alias_info is not None and argument.alias_info.is_write
        (writes if written else reads).extend(tensors)
    return reads, writes
