"""The square hinge loss of the paper's L2-SVM output."""

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """Return ``mean(max(0, 1 - t y)^2)`` over batch and classes, t = +1 at the label, else -1.

    ``scores`` [B, C] real, ``labels`` [B] integers (paper, section 2.1).
    """
    targets = F.one_hot(labels, scores.shape[1]).to(scores.dtype).mul_(2).sub_(1)
    return torch.clamp_min(1 - targets * scores, 0).square().mean()
