"""What stands before the clock: a kernel that cannot run here or is wrong gets no time."""

import torch
from torch import Tensor

from harness.bench.positions import first_wrong_position
from harness.bench.subject import Problem
from kernels.base import Kernel


class NoTimeError(Exception):
    """A kernel that gets no time: why, as a row of the file says it.

    Attributes:
        status: "unavailable", "wrong", "failed" or "skipped".
        reason: in words.
        over_budget: a later run of the same command measures it.
    """

    def __init__(self, status: str, reason: str, over_budget: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.over_budget = status, reason, over_budget


def check_available(kernel: Kernel, problem: Problem) -> None:
    """Raise ``NoTimeError`` where the kernel cannot run here, or not one of the products.

    A packed kernel that is wrong on a one-hot bit somewhere along K is wrong.
    """
    case = problem.case
    for n, k in case.shapes:
        reason = kernel.why_not(case.m, n, k)
        if reason is not None:
            raise NoTimeError("unavailable", reason)
    wrong = first_wrong_position(kernel) if kernel.packed else None
    if wrong is not None:
        raise NoTimeError("wrong", wrong)


def check_dots(dots: Tensor, expected: Tensor) -> None:
    """Raise ``NoTimeError`` where the dots differ from the expected ones anywhere.

    Compared in float64, which holds every int32 and every float32: a fraction shows too.
    """
    if dots.shape != expected.shape:
        wanted, found = list(expected.shape), list(dots.shape)
        raise NoTimeError("wrong", f"the result has shape {found}, the reference {wanted}")
    differing = (dots.to("cpu", torch.float64) != expected.to(torch.float64)).nonzero()
    if len(differing):
        row, column = (int(at) for at in differing[0])
        raise NoTimeError(
            "wrong",
            f"{len(differing)} of {expected.numel()} sampled results differ from the reference; "
            f"the first, [{row}, {column}], is {dots[row, column].item()}, "
            f"expected {expected[row, column].item()}",
        )
