"""What a session of a bench is to do: cases, kernels and files, handed over as a file."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.budget import CALLS_A_STEP, STEP_S, Budget
from harness.bench.cases import Case, get_case
from harness.files import read_json, write_json
from kernels import registry
from kernels.base import Kernel

MARK = "@bnn "  # begins a line of the session's output that is an event, as JSON
CRASHED = 70  # status of a session that a kernel has brought down


@dataclass(frozen=True)
class Entry:
    """A case to bench.

    Attributes:
        case: its name.
        kernels: names of the registry.
        seconds: time that a kernel has.
        path: file to write.
        only: (kernel, includes) that are missing; None: all.
    """

    case: str
    kernels: tuple[str, ...]
    seconds: float
    path: str
    only: tuple[tuple[str, str], ...] | None = None

    def wants(self, kernel: str, includes: str) -> bool:
        """Tell whether this is to be clocked."""
        return self.only is None or (kernel, includes) in self.only


@dataclass(frozen=True)
class Step:
    """One benchmark: a kernel and what is clocked, of the entry at ``place``."""

    place: int
    kernel: str
    includes: str


@dataclass(frozen=True)
class Work:
    """Everything that one process does in turn.

    Attributes:
        device: where the kernels run.
        threads: of the CPU.
        entries: cases in order of worth.
        correctness: file of the stage that comes first; None: it has been.
        checked: kernels that this stage checks.
        limit: seconds that a call may be foreseen to take.
        deadline: by ``time.monotonic``, and ``total_s``, seconds of the whole budget; None: none.
        excluded: kernels, ceilings and what ``blamed`` names that get no time, with status and
            reason.
        parent: process that must go on for this one to.
    """

    device: str
    threads: int
    entries: tuple[Entry, ...]
    correctness: str | None = None
    checked: tuple[str, ...] = ()
    limit: float | None = None
    deadline: float | None = None
    total_s: float | None = None
    excluded: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    parent: int = field(default_factory=os.getpid)

    @property
    def budget(self) -> Budget:
        """The budget, or one without an end."""
        if self.deadline is None or self.total_s is None:
            return Budget()
        return Budget(self.deadline, self.total_s)

    @property
    def call_limit(self) -> float:
        """Seconds that a call may be foreseen to take."""
        most = STEP_S[self.device] / CALLS_A_STEP
        return most if self.limit is None else min(most, self.limit)

    def steps(self) -> list[Step]:
        """Return the benchmarks of kernels in turn; ceilings have none."""
        return [
            Step(place, kernel, includes)
            for place, entry in enumerate(self.entries)
            for kernel, includes in pairs(get_case(entry.case), entry.kernels, self.device)
            if entry.wants(kernel, includes)
        ]

    def ceilings(self) -> list[int]:
        """Return the places of the entries that measure the machine's bounds."""
        groups = [get_case(entry.case).group for entry in self.entries]
        return [place for place, group in enumerate(groups) if group == "ceiling"]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))


def read_work(path: Path) -> Work:
    """Read what ``Work.write`` wrote."""
    found: dict[str, Any] = read_json(path)
    entries = tuple(_entry(**entry) for entry in found.pop("entries"))
    excluded = {name: (status, reason) for name, (status, reason) in found.pop("excluded").items()}
    found["checked"] = tuple(found["checked"])
    return Work(**found, entries=entries, excluded=excluded)


def _entry(kernels: list[str], only: list[list[str]] | None, **others: Any) -> Entry:
    missing = None if only is None else tuple((kernel, includes) for kernel, includes in only)
    return Entry(kernels=tuple(kernels), only=missing, **others)


def blamed(kernel: str, includes: str) -> str:
    """Return what is left out once a benchmark has ended its process: all of the kernel, or a part.

    Networks (their first layer) and convolutions are code of their own, which no check has tried.

    >>> blamed("naive", "gemm+bits"), blamed("naive", "conv+bits"), blamed("naive", "network")
    ('naive', 'naive, convolutions', 'naive, network')
    """
    if includes.startswith("conv"):
        return f"{kernel}, convolutions"
    return f"{kernel}, network" if includes == "network" else kernel


def clocks(kernel: Kernel, includes: str) -> bool:
    """Tell whether ``includes`` is something of its own for ``kernel``."""
    if includes == "pack+gemm":
        return not kernel.takes_reals
    if includes == "gemm+bits":
        return kernel.fused and kernel.packed
    return includes != "conv+bits" or kernel.packed


def pairs(case: Case, kernels: tuple[str, ...], device: str) -> Iterator[tuple[str, str]]:
    """Yield the (kernel, includes) of a case: its products for every kernel first."""
    if case.group == "ceiling":
        return
    for includes in case.includes:
        for name in kernels:
            if clocks(registry.get(name, device), includes):
                yield name, includes
