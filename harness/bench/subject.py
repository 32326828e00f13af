"""What the clock needs to know of a case, and of the case made ready for one kernel."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

from torch import Tensor

from harness.bench.cases import Case
from kernels.base import Kernel

SPOILT = 77  # all dtypes hold it


@dataclass(frozen=True)
class Subject:
    """A case made ready for one kernel.

    Attributes:
        prepare: rows (None: all) to the operand, outside the clock.
        run: operand to dots [M, N], inside it.
        weights: what ``run`` holds, for counting bytes.
        dots: what ``run`` returns to dots [M, N] to compare, outside the clock.
        expected: those of the sampled rows, where they are not the case's own.
    """

    prepare: Callable[[Tensor | None], Any]
    run: Callable[[Any], Any]
    weights: Any
    dots: Callable[[Any], Tensor] = lambda result: result
    expected: Tensor | None = None


class Problem(Protocol):
    """What the clock needs to know of a case."""

    case: Case
    rows: Tensor
    expected: Tensor

    def subject(self, kernel: Kernel, includes: str) -> Subject | None:
        """Return the case for one kernel; None where ``includes`` adds nothing to clock."""


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in ``value``: a tensor, a dataclass or a sequence of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))


def nbytes(value: Any) -> int:
    """Return the bytes of all tensors in ``value``."""
    return sum(x.numel() * x.element_size() for x in tensors(value))


def spoil(value: Any) -> None:
    """Overwrite all tensors in ``value``, so that what is right in them later was written later."""
    for x in tensors(value):
        x.fill_(SPOILT)
