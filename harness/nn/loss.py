"""The square hinge loss of the paper's L2-SVM output."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Return ``mean(max(0, 1 - t y)^2)`` over batch and classes, t = +1 at the label, else -1.

    ``scores`` [B, C] real, ``labels`` [B] integers (paper, section 2.1).
    """
    # Compared, not F.one_hot, whose check of the labels would wait for the device.
    classes = torch.arange(scores.shape[1], device=labels.device)
    targets = (labels.unsqueeze(1) == classes).to(scores.dtype).mul_(2).sub_(1)
    return torch.clamp_min(1 - targets * scores, 0).square().mean()


class _Hinge(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        from kernels.triton.batch import hinge

        loss, mistakes, gradient = hinge(scores, labels)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(mistakes)
        return loss, mistakes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None


def loss_and_mistakes(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return :func:`squared_hinge` and how many labels are not the greatest score."""
    if gpu.takes(scores):
        found: tuple[Tensor, Tensor] = _Hinge.apply(scores, labels)  # type: ignore[no-untyped-call]
        return found
    return squared_hinge(scores, labels), (scores.detach().argmax(1) != labels).sum()
