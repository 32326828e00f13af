"""The GPU kernels of this package, in the registry's order."""

from kernels.base import Kernel
from kernels.triton.naive import Naive, NaiveXnor
from kernels.triton.tensor import TritonInt8, XnorTensor, XnorTensorTma
from kernels.triton.xnor import XnorCsa, XnorCsa7, XnorPopc


def kernels() -> list[Kernel]:
    """Return an instance of each."""
    return [
        Naive(),
        NaiveXnor(),
        XnorPopc(),
        XnorCsa(),
        XnorCsa7(),
        XnorTensor(),
        XnorTensorTma(),
        TritonInt8(),
    ]
