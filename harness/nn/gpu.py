"""Which tensors the Triton kernels of a training step take, and products with bfloat16 operands.

The kernels run on CUDA, or on the CPU under Triton's interpreter: with ``TRITON_INTERPRET=1`` the
whole step of a GPU can be tested without one.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def _kernel_device() -> str:
    if find_spec("triton") is None:
        return ""
    from kernels.triton.device import DEVICE

    return DEVICE


def runs_on(tensor: Tensor) -> bool:
    """Return True where the Triton kernels run on the tensor's device."""
    kind = tensor.device.type
    if kind == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return False  # without importing triton
    return kind == _kernel_device()


def holds(tensor: Tensor) -> bool:
    """Return True on a GPU, with Triton or without, and where the interpreter stands for one."""
    return tensor.is_cuda or runs_on(tensor)


def takes(*tensors: Tensor) -> bool:
    """Return True where the Triton kernels take all of the tensors: float32, on their device."""
    return all(t.dtype == torch.float32 and runs_on(t) for t in tensors)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` in float32 for bfloat16 [M, K] and [K, N]; sums are kept in float32.

    Exact where all partial sums are integers below 2^24.
    """
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
