"""How the libraries of a GPU round float32, as torch sets it: for products and convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def float32_precision(name: str) -> Iterator[None]:
    """Let float32 products and convolutions run as ``ieee`` or ``tf32``, and as before after."""
    cudnn: Any = torch.backends.cudnn
    settings: list[Any] = [torch.backends.cuda.matmul, cudnn.conv]
    before = [part.fp32_precision for part in settings]
    try:
        for part in settings:
            part.fp32_precision = name
        yield
    finally:
        for part, old in zip(settings, before, strict=True):
            part.fp32_precision = old
