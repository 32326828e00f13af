"""The cases of ``tests.norms`` where this folder's kernels run."""

from torch import Tensor

from tests import norms
from tests.triton.operands import on_device


class Case(norms.Case):
    """A case whose operands lie where the kernels run."""

    @property
    def operands(self) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
        """What both host functions take."""
        dots, bias, scale, gamma, beta = super().operands
        return on_device(dots), on_device(bias), scale, on_device(gamma), on_device(beta)


def case(rows: int, c: int) -> Case:
    """Return the case of that many rows and columns."""
    return Case(**vars(norms.case(rows, c)))
