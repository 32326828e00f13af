"""Shift-based training: AP2, batch normalisation (Algorithm 3) and AdaMax (Algorithm 4)."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import fused
from harness.nn.attached import Factors
from harness.nn.batch_norm import BatchNorm
from harness.nn.eager import EagerOptimizer

# Mantissa bits of the first float32 above sqrt(2): from here on log2|z| rounds up. The nearest
# float32, 0x3504F3, lies below sqrt(2) and rounds down.
_SQRT2_MANTISSA = 0x3504F4
_EXPONENT_AND_SIGN = -0x800000


def ap2(z: Tensor) -> Tensor:
    """Return the approximate power of two ``sign(z) * 2^round(log2|z|)`` (paper, section 1.4).

    Worked on the bits of float32: rounding log2 up at a mantissa of sqrt(2) is one integer
    addition. ``AP2(0) = 0``, subnormals (below 2^-126) give a zero or 2^-126, infinities and
    NaN pass through. float64 goes through float32's bits.
    """
    single = z.detach().to(torch.float32).contiguous()
    rounded = single.view(torch.int32) + (0x800000 - _SQRT2_MANTISSA)
    power = (rounded & _EXPONENT_AND_SIGN).view(torch.float32)
    return torch.where(single.isfinite(), power, single).to(z.dtype)


def ap2_scalar(z: float) -> float:
    """Return :func:`ap2` of one Python float: ``sign(z) * 2^round(log2|z|)``, 0 at 0."""
    return math.copysign(2.0 ** round(math.log2(abs(z))), z) if z else 0.0


class _ShiftNormalize(Function):
    """xhat = C * AP2(1/sqrt(var + eps)), y = AP2(gamma) * xhat + beta, over rows [B, C]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(0)
        centred = x - mean
        centred_ap2 = ap2(centred)
        inverse_std = torch.rsqrt((centred * centred_ap2).mean(0) + eps)
        shift = ap2(inverse_std)
        scale = ap2(gamma)
        ctx.save_for_backward(centred, centred_ap2, shift, scale)
        ctx.mark_non_differentiable(mean, inverse_std)
        return centred * (shift * scale) + beta, mean, inverse_std

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, centred_ap2, shift, scale = ctx.saved_tensors
        g = gradients[0]
        projection = (g * centred).mean(0)
        inner = g - g.mean(0) - centred_ap2 * (shift.square() * projection)
        return inner * (shift * scale), projection * shift * g.shape[0], g.sum(0), None


class ShiftBatchNorm(BatchNorm):
    """Shift-based batch normalisation (paper, Algorithm 3) of ``[B, C]`` or ``[B, C, H, W]``.

    ``C(x) = x - mean``; ``var = mean(C * AP2(C))``; ``xhat = C * AP2(1/sqrt(var + eps))``;
    ``y = AP2(gamma) * xhat + beta``. Running averages, with ``momentum`` for the newest batch,
    are of the mean and of the inverse deviation by the same formula; the latter passes through
    AP2 at test time. The gradient takes AP2 factors as constants and AP2 of the centred input:
    ``dx = AP2(gamma) s (g - mean(g) - AP2(C) s^2 mean(g C))`` with ``s = AP2(1/sqrt(var + eps))``.

    ``running="variance"`` averages ``var`` instead of the inverse deviation, ``"vanilla"`` the
    inverse deviation by the vanilla formula, ``1/sqrt(mean(C^2) + eps)``: two readings of the text,
    which names no running statistics.
    """

    shift_based = True

    def __init__(
        self,
        features: int,
        eps: float = 1e-5,
        momentum: float = 0.125,
        running: str = "inverse-std",
    ) -> None:
        if running not in ("inverse-std", "variance", "vanilla"):
            raise ValueError(
                f"running must be 'inverse-std', 'variance' or 'vanilla', found {running!r}"
            )
        spread = "running_var" if running == "variance" else "running_inv_std"
        super().__init__(features, eps, momentum, spread)
        self.running = running

    @property
    def fusable(self) -> bool:
        """False for the vanilla formula, which asks for the batch itself."""
        return self.running != "vanilla"

    def spread_of(self, inv_std: Tensor, n: int) -> Tensor:
        """Return the inverse deviation by the shift-based formula, or its variance."""
        return inv_std if self.running == "inverse-std" else inv_std.pow(-2) - self.eps

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.evaluate(x, 1)
        rows = x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        y: Tensor
        y, mean, inv_std = _ShiftNormalize.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            if self.fusable:
                self.average(mean, inv_std, len(rows))
            else:
                vanilla = torch.rsqrt(rows.var(0, correction=0) + self.eps)
                self.average_newest(mean, vanilla)
        if x.dim() == 2:
            return y
        b, c, h, w = x.shape
        return y.view(b, h, w, c).permute(0, 3, 1, 2)

    def test_factor(self) -> Tensor:
        """Return ``AP2(gamma) AP2(1/sqrt(var + eps))``, [C]."""
        spread = self.get_buffer(self._spread)
        if self.running == "variance":
            spread = torch.rsqrt(spread + self.eps)
        return ap2(spread) * ap2(self.weight)


class ShiftAdaMax(EagerOptimizer):
    """Shift-based AdaMax (paper, Algorithm 4).

    ``m = b1 m + (1-b1) g``; ``v = max(b2 v, |g| + eps)``;
    ``theta -= AP2(lr / (1 - b1^t)) * scale * m * AP2(1/v)``. A group's ``lr_scale`` is its
    layer's Glorot coefficient in the form the recipe asks for. ``stored_ap2`` rounds the stored
    ``v`` to a power of two as the released code does, so that ``b2 v`` rounds back to ``v`` and
    ``v`` never decays.
    """

    scales_itself = True  # by its groups' lr_scale, after the rate is rounded

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (1 - 2**-3, 1 - 2**-10),
        eps: float = 2**-27,
        stored_ap2: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "stored_ap2": stored_ap2,
            "lr_scale": 1.0,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not supported."""
        if closure is not None:
            raise ValueError("ShiftAdaMax takes no closure")
        for parameter, gradient, group, bound in self.gradients():
            self._update(parameter, gradient, group, bound)

    def _update(
        self, parameter: Tensor, gradient: Tensor | Factors, group: dict[str, Any], bound: float
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["m"] = torch.zeros_like(parameter)
            state["v"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        m, v = state["m"], state["v"]
        rate = ap2_scalar(group["lr"] / (1 - beta1 ** state["step"])) * group["lr_scale"]
        if fused.takes(parameter, m, v):
            fused.shift_adamax_(
                parameter, gradient, m, v, betas=group["betas"], eps=group["eps"], rate=rate,
                stored=group["stored_ap2"], bound=bound,
            )  # fmt: skip
            return
        assert isinstance(gradient, Tensor), "factors are for the kernels of a CPU"
        m.lerp_(gradient, 1 - beta1)
        torch.maximum(v.mul_(beta2), gradient.abs().add_(group["eps"]), out=v)
        if group["stored_ap2"]:
            v.copy_(ap2(v))
        parameter.addcmul_(m, ap2(v.reciprocal()), value=-rate)
        if bound < math.inf:
            parameter.clamp_(-bound, bound)
