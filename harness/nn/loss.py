"""The square hinge loss of the paper's L2-SVM output."""

import torch
from torch import Tensor

from harness.nn import gpu


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Return ``mean(max(0, 1 - t y)^2)`` over batch and classes, t = +1 at the label, else -1.

    ``scores`` [B, C] real, ``labels`` [B] integers (paper, section 2.1).
    """
    # Compared, not F.one_hot, whose check of the labels would wait for the device.
    classes = torch.arange(scores.shape[1], device=labels.device)
    targets = (labels.unsqueeze(1) == classes).to(scores.dtype).mul_(2).sub_(1)
    return torch.clamp_min(1 - targets * scores, 0).square().mean()


def backward_from(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Run backward from :func:`squared_hinge`; return it, and how many labels are not the greatest.

    On a GPU the loss comes with its gradient, in one launch.
    """
    if gpu.takes(scores):
        from kernels.triton.batch import hinge

        loss, mistakes, gradient = hinge(scores.detach(), labels)
        scores.backward(gradient)  # type: ignore[no-untyped-call]
        return loss, mistakes
    loss = squared_hinge(scores, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), (scores.detach().argmax(1) != labels).sum()
