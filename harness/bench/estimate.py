"""``bnn bench --preset ... --plan``: where the time goes, by counted operations; nothing is run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.bench.budget import Budget
from harness.bench.cases import CLASSES, Case
from harness.bench.correctness import SHAPES
from harness.bench.measure import LONG_S, MIN_ROUNDS
from harness.bench.presets import get_preset, preset_settings
from harness.bench.problems import PROBES
from harness.bench.runner import Settings
from harness.bench.work import pairs
from kernels import gpu
from kernels.packing import words_for

# As an H200 with 16 cores took them: a process that imports torch, triton and numba and opens the
# device; processes that start and follow all calls without a GPU; one variant of a Triton kernel
# compiled, its launcher included; making, copying and capturing the operands of a benchmark on a
# GPU, and its warm-up. Assumed: a row of operands drawn and packed on the host, a byte; a reading
# of the machine's state.
PROCESS_S = 9.0
AHEAD_S = 13.0
COMPILE_S = 0.8
HOST_S = {"cpu": 0.02, "cuda": 0.04}
DRAWN_BYTES_S = 1e8
STATE_S = 0.3
VARIANTS = 6  # of a Triton kernel that the checks compile
PROCESSORS, TILES = 132, (128 * 256, 128 * 128)  # of an H200; outputs of the two larger tiles
CEILINGS, CEILINGS_COMPILED = {"cpu": 4, "cuda": 8}, {"cpu": 0, "cuda": 3}
WORTH = {"cpu": 1.2, "cuda": 1.0}  # warm-up beside the clocked time
REPLAYS = 2  # of a long call, for each that is clocked: to foresee or to warm up; two to check
PLAN_WIDTH = 160  # columns of the printed plan where no terminal says


@dataclass(frozen=True)
class Foreseen:
    """A case, how many benchmarks it has, and the seconds that it is foreseen to take."""

    case: str
    threads: int
    benchmarks: int
    kernels: tuple[str, ...]
    compile_s: float
    clocked_s: float
    other_s: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.compile_s + self.clocked_s + self.other_s


def _variants(case: Case, kernel: str, includes: str) -> set[tuple[Any, ...]]:
    """Return what Triton compiles for a benchmark: an output, a divisibility, a size of tile.

    Packed output is compared through a product with ``PROBES`` rows; a network has bits, and dots
    of its classes.
    """
    outputs = [(case.n, includes in ("gemm+bits", "conv+bits"))]
    if includes == "gemm+bits":
        outputs.append((PROBES, False))
    elif case.group == "mlp":
        outputs = [(case.n, True), (CLASSES, False)]
    found = set()
    for n, bits in outputs:
        tile = sum(case.m * n < PROCESSORS * size for size in TILES)
        conv = case.group == "conv"
        found.add((kernel, bits, conv, case.m == 1, case.m % 16 == 0, n % 16 == 0, tile))
    return found


def _operand_bytes(case: Case) -> int:
    if case.side:
        return 8 * (case.m * case.side**2 * words_for(case.k // 9) + case.n * words_for(case.k))
    return sum(8 * (case.m + n) * words_for(k) for n, k in case.shapes)


def _is_compiled(kernel: str, device: str) -> bool:
    return device == "cuda" and kernel in gpu.NAMES


def _foresee(case: Case, settings: Settings, compiled: set[tuple[Any, ...]]) -> Foreseen:
    device, budget, most = settings.device, Budget(), settings.limit
    chosen = list(pairs(case, tuple(settings.kernels), device))
    compile_s = clocked_s = other_s = 0.0
    for kernel, includes in chosen:
        call_s = budget.foreseen_s(kernel, device, case.ops)
        if _is_compiled(kernel, device):
            variants = _variants(case, kernel, includes) - compiled
            compiled |= variants
            compile_s += COMPILE_S * len(variants)
        if call_s <= most:
            rounds = MIN_ROUNDS if MIN_ROUNDS * call_s <= LONG_S else 1
            clocked_s += max(WORTH[device] * settings.seconds, REPLAYS * rounds * call_s)
            clocked_s += 2 * call_s
            other_s += HOST_S[device]
    if case.group == "ceiling":
        chosen = [("", "")] * CEILINGS[device]
        clocked_s, compile_s = len(chosen) * settings.seconds, CEILINGS_COMPILED[device] * COMPILE_S
    other_s += _operand_bytes(case) / DRAWN_BYTES_S + STATE_S
    kernels = tuple(dict.fromkeys(kernel for kernel, _ in chosen if kernel))
    return Foreseen(
        case.name, settings.threads, len(chosen), kernels, compile_s, clocked_s, other_s
    )


def foresee(name: str, limit: float = math.inf, added: Sequence[str] = ()) -> Iterator[Foreseen]:
    """Yield what starts, checks and each case of a preset are foreseen to take, by counts alone.

    Raises:
        HarnessError: an unknown preset or kernel.
    """
    device, todo = get_preset(name).device, list(preset_settings(name, limit, added))
    kernels = tuple(dict.fromkeys(kernel for _, found in todo for kernel in found.kernels))
    processes = len({settings.threads for _, settings in todo})
    yield Foreseen("start", 0, 0, (), 0, 0, PROCESS_S * processes)
    compiled: set[tuple[Any, ...]] = set()
    cases = [_foresee(case, settings, compiled) for case, settings in todo]
    variants = VARIANTS * sum(_is_compiled(kernel, device) for kernel in kernels)
    if variants:
        compile_s = COMPILE_S * variants + sum(case.compile_s for case in cases)
        cores = max(settings.threads for _, settings in todo)
        yield Foreseen("compiling ahead", cores, 0, (), compile_s / cores, 0, AHEAD_S)
    checks = len(SHAPES) * len(kernels)
    yield Foreseen("correctness", 0, checks, kernels, 0, 0, 0.02 * checks)
    yield from (replace(case, compile_s=0) for case in cases)


def show_plan(name: str, limit: float, minutes: float | None, added: Sequence[str] = ()) -> None:
    """Print the plan as a table, with the sum beside the budget."""
    from rich.console import Console
    from rich.table import Table

    preset = get_preset(name)
    allowed_s = 60 * (preset.minutes if minutes is None else minutes)
    table = Table(title=f"preset {name}: seconds by counted operations, not measured")
    for heading in ("case", "kernels"):
        table.add_column(heading, no_wrap=heading == "case")
    for heading in ("threads", "benchmarks", "compile", "clocked", "other", "sum", "so far"):
        table.add_column(heading, justify="right", no_wrap=True)
    so_far, rows = 0.0, list(foresee(name, limit, added))
    most = max(len(row.kernels) for row in rows)
    for row in rows:
        so_far += row.seconds
        parts = (row.compile_s, row.clocked_s, row.other_s, row.seconds, so_far)
        threads = str(row.threads or "")
        named = "all" if len(row.kernels) == most else ", ".join(row.kernels)
        counts = (named, threads, str(row.benchmarks or ""))
        table.add_row(row.case, *counts, *(f"{part:.1f}" for part in parts))
    console = Console()  # of a pipe or a file: 80 columns, and no kernels
    (console if console.is_terminal else Console(width=PLAN_WIDTH)).print(table)
    within = "no budget" if math.isinf(allowed_s) else f"the budget is {allowed_s:.0f} s"
    everything = next(row.kernels for row in rows if len(row.kernels) == most)
    print(f"all: {', '.join(everything)}")
    print(f"foreseen: {so_far:.0f} s; {within}")
