"""A network at test time: scores, loss and error of a split."""

import torch
from torch import Tensor, nn

from harness.nn.loss import squared_hinge
from harness.train.inputs import Resident

EVALUATION_BATCH = 500


@torch.no_grad()
def predict_scores(network: nn.Module, images: Resident) -> Tensor:
    """Return the scores [n, 10] of the network at test time, in batches of 500."""
    network.eval()
    starts = range(0, len(images), EVALUATION_BATCH)
    scores = [network(images.batch(slice(s, s + EVALUATION_BATCH))[0]) for s in starts]
    return torch.cat(scores)


def evaluate(network: nn.Module, images: Resident) -> tuple[float, float]:
    """Return the mean square hinge loss and the error rate in percent."""
    scores = predict_scores(network, images)
    return squared_hinge(scores, images.labels).item(), error_pct(scores, images.labels)


def error_pct(scores: Tensor, labels: Tensor) -> float:
    """Return in percent how many of the labels are not the greatest score."""
    return 100 * (scores.argmax(1) != labels).float().mean().item()
