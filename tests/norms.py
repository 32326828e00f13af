"""Batch norm and sign by the library's operations, which fused ones are held against."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.nn.batch_norm import BatchNorm
from harness.nn.binarize import binarize_activation
from harness.nn.norm import VanillaBatchNorm
from harness.nn.shift import ShiftBatchNorm

EPS, SCALE = 1e-4, 0.5
# A sum of 1000 float32 values of size s, in any order, errs by well below 1000 * 2^-24 s = 6e-5 s;
# mean, deviation, y and the gradients are a few such sums and products of them.
TOLERANCE = 6e-5
# Of y, which is of size 1 to 10, from the same sums: nearer to a step than this, either side is
# right.
MARGIN = 1e-4


def layer_of(form: str, features: int) -> BatchNorm:
    """Return a vanilla norm of Lasagne's or torch's form, or a shift-based one by its averages."""
    if form in ("lasagne", "torch"):
        return VanillaBatchNorm(features, form, EPS, 0.1)
    return ShiftBatchNorm(features, EPS, 0.1, form)


@dataclass
class Case:
    dots: Tensor
    bias: Tensor
    gamma: Tensor
    beta: Tensor
    draws: Tensor
    gradient: Tensor

    @property
    def operands(self) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
        """What both host functions take."""
        return self.dots, self.bias, SCALE, self.gamma, self.beta


def case(rows: int, c: int) -> Case:
    generator = torch.Generator().manual_seed(1000 * rows + c)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dots = torch.randint(-40, 41, (rows, c), generator=generator).float()
    draws = torch.rand(rows, c, generator=generator)
    return Case(dots, normal(c), normal(c), normal(c), draws, normal(rows, c))


def chain(
    x: Case,
    dtype: torch.dtype,
    gated: bool = True,
    gradient: Tensor | None = None,
    shift: bool = False,
    relu: bool = False,
) -> dict[str, Tensor]:
    """Return what Block does by autograd: y, signs and gradients; the statistics of z.

    With ``relu`` max(y, 0) is in the signs' place.
    """
    c = x.dots.shape[1]
    vanilla: BatchNorm = VanillaBatchNorm(c, "lasagne", EPS, 1.0)
    layer = (ShiftBatchNorm(c, EPS, 1.0) if shift else vanilla).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(x.gamma)
        layer.bias.copy_(x.beta)
    dots, bias = (t.detach().to(dtype).requires_grad_() for t in (x.dots, x.bias))
    y = layer(dots * SCALE + bias)
    signs = torch.relu(y) if relu else binarize_activation(y, None, gated)
    signs.backward((x.gradient if gradient is None else gradient).to(dtype))
    grads = (dots.grad, layer.weight.grad, layer.bias.grad, bias.grad)
    names = ("d_dots", "d_gamma", "d_beta", "d_bias")
    found = {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}
    statistics = {"mean": layer.running_mean, "inv_std": layer.get_buffer("running_inv_std")}
    return found | statistics | {"y": y.detach(), "signs": signs.detach()}


def in_doubt(x: Tensor) -> Tensor:
    """Return where AP2 of a value that rounding may have moved is in doubt: near to sqrt(2) 2^k."""
    exponent = x.double().abs().log2()
    return ((exponent - exponent.floor() - 0.5).abs() < 4e-6) & (x != 0)


def close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Compare relative to the expected tensor's greatest value, or to 1."""
    size = expected.abs().max().clamp(min=1)
    return bool(((found.cpu() - expected).abs() <= tolerance * size).all())
