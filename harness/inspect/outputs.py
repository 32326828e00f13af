"""Facts of a network's test scores: the confusion matrix and how well scores mean confidence."""

from typing import Any

import torch
from torch import Tensor

from harness.nn.binarize import hard_sigmoid

CALIBRATION_BINS = 10


def confusion(scores: Tensor, labels: Tensor) -> list[list[int]]:
    """Return counts [true class][predicted class] for scores [n, C]."""
    classes = scores.shape[1]
    pairs = labels.long() * classes + scores.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()


def calibration(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return how often the predicted class is right, by the confidence in it.

    The square hinge loss against t = ±1 is least in the mean at ``2 P(t = +1) - 1``, so a score s
    stands for the probability ``clip((s + 1) / 2, 0, 1)``. ``counts``, ``confidence`` (sums) and
    ``correct`` are over ten bins of that probability of the predicted class; ``ece_pct`` is the
    expected calibration error, Σ counts/n · |accuracy - confidence|, in %.
    """
    top, predicted = scores.max(1)
    probability = hard_sigmoid(top.double())
    right = (predicted == labels).double()
    bins = (probability * CALIBRATION_BINS).long().clamp_(max=CALIBRATION_BINS - 1)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, values)

    counts, sums, correct = total(torch.ones_like(right)), total(probability), total(right)
    ece = float((correct - sums).abs().sum()) / len(labels)
    return {
        "counts": counts.long().tolist(),
        "confidence": [round(value, 4) for value in sums.tolist()],
        "correct": correct.long().tolist(),
        "ece_pct": round(100 * ece, 4),
    }
