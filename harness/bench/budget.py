"""How long a bench may take: what fits is foreseen from counted operations and clocked calls."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.bench.gate import NoTimeError

# 10^12 operations a second that a kernel is foreseen to do before it was clocked, on the low side.
# cpu: two cores with AVX2; cuda: an H200; both measured (results/reference).
RATES: dict[tuple[str, str], float] = {
    ("naive", "cpu"): 0.004, ("xnor-cpu", "cpu"): 1.0, ("vendor-fp32", "cpu"): 0.1,
    ("vendor-bf16", "cpu"): 0.02, ("vendor-int8", "cpu"): 0.02,
    ("naive", "cuda"): 0.9, ("naive-shared", "cuda"): 7.5, ("naive-xnor", "cuda"): 28.0,
    ("naive-shared-xnor", "cuda"): 65.0, ("xnor-popc", "cuda"): 240.0, ("xnor-csa", "cuda"): 350.0,
    ("xnor-csa7", "cuda"): 350.0, ("xnor-tensor", "cuda"): 3000.0,
    ("xnor-tensor-tma", "cuda"): 3000.0, ("triton-int8", "cuda"): 500.0,
    ("vendor-fp32", "cuda"): 48.0, ("vendor-tf32", "cuda"): 280.0, ("vendor-fp16", "cuda"): 500.0,
    ("vendor-bf16", "cuda"): 500.0, ("vendor-int8", "cuda"): 700.0, ("vendor-fp8", "cuda"): 700.0,
    ("vendor-fp8-fast", "cuda"): 700.0,
}  # fmt: skip
UNKNOWN = {"cpu": 0.02, "cuda": 5.0}
START_S = {"cpu": 0.2, "cuda": 1.0}  # to make operands and to compile, where that is still to do
CEILING_S = 0.2  # that a bound of the machine is foreseen to take
CALLS = 3  # to check, to foresee and to clock
# Of one step; a kernel that takes longer counts as hung. On a CPU a call may take minutes.
STEP_S = {"cpu": math.inf, "cuda": 90.0}
CALLS_A_STEP = 6  # that fit into one, so that no slow kernel is taken for a hung one


@dataclass
class Budget:
    """Seconds that are left, and the speed of each kernel as far as it was clocked.

    Attributes:
        deadline: of ``clock``; infinite: no budget.
        total_s: what the whole had, for the reason.
        clock: seconds that only go on.
    """

    deadline: float = math.inf
    total_s: float = math.inf
    clock: Callable[[], float] = time.monotonic
    _seen: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds left, 0 at least."""
        return max(0.0, self.deadline - self.clock())

    def saw(self, kernel: str, device: str, ops: int, call_s: float) -> None:
        """Remember a clocked call; the largest case of a kernel counts."""
        if ops >= self._seen.get((kernel, device), (0, 0.0))[0]:
            self._seen[kernel, device] = ops, call_s

    def foreseen_s(self, kernel: str, device: str, ops: int) -> float:
        """Return the seconds that a call of ``ops`` operations is foreseen to take."""
        if (kernel, device) in self._seen:
            known_ops, call_s = self._seen[kernel, device]
            return call_s * ops / known_ops
        return ops / 1e12 / RATES.get((kernel, device), UNKNOWN[device])

    def check(self, kernel: str, device: str, ops: int) -> None:
        """Raise ``NoTimeError`` where the kernel is foreseen not to fit."""
        self.check_seconds(START_S[device] + CALLS * self.foreseen_s(kernel, device, ops))

    def check_seconds(self, seconds: float) -> None:
        """Raise ``NoTimeError`` where ``seconds`` are not left."""
        left = self.left_s
        if seconds > left:
            raise NoTimeError(
                "skipped",
                f"foreseen to take {seconds:.1f} s, {left:.1f} s are left of the budget of "
                f"{self.total_s / 60:g} minutes; the same command again goes on with it",
                over_budget=True,
            )

    def seconds(self, wanted: float) -> float:
        """Return the time a kernel is clocked for: ``wanted``, or what is left."""
        return min(wanted, self.left_s)
