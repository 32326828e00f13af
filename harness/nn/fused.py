"""Optimizer steps, signs and draws in one pass: which tensors the kernels take, dense float32 ones.

On the CPU where numba is there; signs on a GPU too, whose optimizers are ``harness.nn.planned``.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.nn import gpu
from harness.nn.attached import Factors, attachment

if TYPE_CHECKING:
    import numpy as np

AVAILABLE = find_spec("numba") is not None
# Below, a call costs more than the passes that it spares.
SMALLEST_SIGN = 1 << 14


def takes(*tensors: Tensor) -> bool:
    """Return True where the kernels can work on all of the tensors as flat float32 arrays."""
    return AVAILABLE and all(
        t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors
    )


def flat(tensor: Tensor) -> "np.ndarray":
    """Return the contiguous tensor's memory as a NumPy vector."""
    return tensor.detach().view(-1).numpy()


def adam_(
    parameter: Tensor, gradient: Tensor | Factors, m: Tensor, v: Tensor, *,
    betas: tuple[float, float], eps: float, lr: float, step: int, bound: float,
) -> None:  # fmt: skip
    """Take one step of Adam in torch's form, clipped to ``[-bound, bound]``, in place."""
    from kernels.cpu import steps

    numbers = steps.adam_numbers(betas, eps, lr, step, bound)
    _update(parameter, gradient, m, v, numbers, adamax=False)


def shift_adamax_(
    parameter: Tensor, gradient: Tensor | Factors, m: Tensor, v: Tensor, *,
    betas: tuple[float, float], eps: float, rate: float, stored: bool, bound: float,
) -> None:  # fmt: skip
    """Take one step of shift-based AdaMax, clipped to ``[-bound, bound]``, in place."""
    from kernels.cpu import steps

    numbers = steps.adamax_numbers(betas, eps, rate, stored, bound)
    _update(parameter, gradient, m, v, numbers, adamax=True)


def _update(
    parameter: Tensor, gradient: Tensor | Factors, m: Tensor, v: Tensor,
    numbers: "np.ndarray", adamax: bool,
) -> None:  # fmt: skip
    signs = None
    if isinstance(gradient, tuple):
        from kernels.cpu import signed, signed_update
        from kernels.cpu.threads import follow_torch

        follow_torch()
        rows, planes = gradient
        patterns = signed.index(planes.numpy(), parameter.shape[1])
        arrays = (tensor.detach().numpy() for tensor in (parameter, m, v))
        signs = signed_update.update(rows.numpy(), patterns, len(planes), numbers, adamax, *arrays)
    else:
        from kernels.cpu import steps

        take = steps.shift_adamax if adamax else steps.adam
        flats = flat(parameter), flat(gradient.contiguous()), flat(m), flat(v)
        take(*flats, numbers, torch.get_num_threads())
    torch.autograd.graph.increment_version([parameter, m, v])
    if signs is not None:
        beside = attachment(parameter)
        beside.words, beside.words_version = torch.from_numpy(signs), parameter._version


def draws(like: Tensor, generator: torch.Generator, p: float | None = None) -> Tensor:
    """Return numbers uniform on [0, 1) in the shape of ``like``, or with ``p`` ones of probability
    p and zeros: those of ``uniform_`` and of ``bernoulli_(p)``, from the same generator."""
    out = torch.empty_like(like)
    dense = _dense(out)
    if takes(dense):
        from kernels.cpu import pages
        from kernels.cpu.draws import draw

        drawn = pages.empty(1, out.numel(), torch.float32).view(dense.shape)
        draw(drawn, generator, p)
        return drawn if dense is out else drawn.permute(0, 3, 1, 2)
    return (
        out.uniform_(generator=generator) if p is None else out.bernoulli_(p, generator=generator)
    )


def _dense(x: Tensor) -> Tensor:
    """Return a map that lies channels last in its order in memory, or x itself."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1) if last else x


def packed_drawn_signs(x: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return the packed signs of rows x [M, K] as :func:`drawn_sign` draws them, or None."""
    if x.numel() < SMALLEST_SIGN or not takes(x):
        return None
    from kernels.cpu.draws import packed_signs

    return packed_signs(x, generator)


def drawn_sign(x: Tensor, draws: Tensor) -> Tensor | None:
    """Return ``draws`` as +1 where ``2 draws - 1 < x``, else -1; None where no kernel takes it."""
    dense, drawn = _dense(x), _dense(draws)
    alike = x.shape == draws.shape and dense.stride() == drawn.stride()
    if x.numel() < SMALLEST_SIGN or not (alike and takes(dense, drawn)):
        return None
    from kernels.cpu import steps

    steps.drawn_sign(flat(dense), flat(drawn), torch.get_num_threads())
    return draws


def sign(x: Tensor) -> Tensor | None:
    """Return the signs of ``x`` by one pass, or None where the kernel does not take it."""
    dense = _dense(x)
    if dense.is_contiguous() and gpu.takes(x):
        from kernels.triton.update import sign_

        signs = torch.empty_like(x)  # in the order of x in memory
        sign_(x.detach(), signs)
        return signs
    if x.numel() < SMALLEST_SIGN or not takes(dense):
        return None
    from kernels.cpu import steps

    out = torch.empty_like(dense, memory_format=torch.contiguous_format)
    steps.sign(flat(dense), flat(out), torch.get_num_threads())
    return out if dense is x else out.permute(0, 3, 1, 2)
