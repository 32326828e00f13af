"""Which operations of several streams may overlap: vector clocks, and the bytes that each touches.

An operation is after what its stream did before, after all that its stream has waited for, and
after all that the host has waited for. Two operations of which neither is after the other, one of
which writes a byte that the other touches, are a race.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor

Clock = dict[int, int]  # by stream, how many of its operations are behind


class Span(NamedTuple):
    """Bytes ``first`` up to ``past`` of a storage."""

    storage: int
    first: int
    past: int


class Access(NamedTuple):
    """A stream's latest operation of one kind on one span, the ``tick``-th of the stream."""

    name: str
    stream: int
    tick: int
    span: Span
    writes: bool


def span(tensor: Tensor) -> Span | None:
    """Return the bytes from the tensor's first element to its last; None where it has none."""
    if not tensor.numel():
        return None
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    start, size = tensor.storage_offset(), tensor.element_size()
    return Span(tensor.untyped_storage()._cdata, start * size, (start + last + 1) * size)


def _merge(clock: Clock, other: Clock) -> None:
    for stream, tick in other.items():
        clock[stream] = max(tick, clock.get(stream, 0))


class Order:
    """The operations so far; what is found wrong is appended to ``faults``."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        self._clocks: dict[int, Clock] = {}
        self._host: Clock = {}
        self._latest: dict[int, dict[tuple[int, Span, bool], Access]] = {}

    def clock(self, stream: int) -> Clock:
        """Return what is behind the stream's next operation."""
        clock = self._clocks.setdefault(stream, {})
        _merge(clock, self._host)
        return clock

    def operation(
        self, stream: int, name: str, reads: Iterable[Span], writes: Iterable[Span]
    ) -> None:
        """Add an operation; each race with an earlier one is a fault."""
        touched = [(found, False) for found in reads] + [(found, True) for found in writes]
        clock = self.clock(stream)
        tick = clock[stream] = clock.get(stream, 0) + 1
        for found, writes_it in touched:
            self._check(Access(name, stream, tick, found, writes_it))
        for found, writes_it in touched:
            access = Access(name, stream, tick, found, writes_it)
            self._latest.setdefault(found.storage, {})[stream, found, writes_it] = access

    def _check(self, new: Access) -> None:
        clock = self.clock(new.stream)
        for old in self._latest.get(new.span.storage, {}).values():
            apart = old.span.past <= new.span.first or new.span.past <= old.span.first
            if apart or not (old.writes or new.writes):
                continue
            if clock.get(old.stream, 0) < old.tick:
                does, did = ("writes" if a.writes else "reads" for a in (new, old))
                self.faults.append(
                    f"{new.name} on stream {new.stream} {does} what {old.name} on stream "
                    f"{old.stream} {did}, without a wait between"
                )

    def wait(self, stream: int, other: int) -> None:
        """Put what ``stream`` does from here on after all that ``other`` has been given."""
        _merge(self.clock(stream), self.clock(other))

    def host_waits(self, stream: int) -> None:
        """Put all that the host gives out from here on after what ``stream`` has been given."""
        _merge(self._host, self.clock(stream))

    def freed(self, storage: int, stream: int) -> None:
        """Note that the host frees a storage that it allocated on ``stream``.

        The allocator may give the memory to the stream's next operation, so whoever still uses it
        must be behind that one.
        """
        whole = Span(storage, 0, 2**63)
        self._check(Access("an operation that gets the freed memory", stream, 0, whole, True))
        self._latest.pop(storage, None)

    def accesses(self) -> Iterator[Access]:
        """Yield the latest operations on every storage that has not been freed."""
        for found in self._latest.values():
            yield from found.values()

    def uses(self, storage: int) -> bool:
        """Return True where an operation touched the storage."""
        return storage in self._latest

    def is_behind(self, stream: int, other: int) -> bool:
        """Return True where all that ``other`` has been given is behind ``stream``."""
        return self.clock(stream).get(other, 0) >= self.clock(other).get(other, 0)
