"""A network at test time: scores, loss and error of a split."""

import torch
from torch import Tensor, nn

from harness.nn.loss import squared_hinge
from harness.train.inputs import Resident

EVALUATION_BATCH = 500  # whose maps stay in a CPU's caches
GPU_BATCH = 5000  # work for all processors; maps of ConvNet(128) take 5 GB


@torch.no_grad()
def predict_scores(network: nn.Module, images: Resident) -> Tensor:
    """Return the scores [n, 10] of the network at test time, in batches."""
    network.eval()
    batch = GPU_BATCH if images.labels.is_cuda else EVALUATION_BATCH
    starts = range(0, len(images), batch)
    scores = [network(images.batch(slice(s, s + batch))[0]) for s in starts]
    return torch.cat(scores)


def evaluate(network: nn.Module, images: Resident) -> tuple[float, float]:
    """Return the mean square hinge loss and the error rate in percent."""
    scores = predict_scores(network, images)
    return squared_hinge(scores, images.labels).item(), error_pct(scores, images.labels)


def error_pct(scores: Tensor, labels: Tensor) -> float:
    """Return in percent how many of the labels are not the greatest score."""
    return 100 * (scores.argmax(1) != labels).float().mean().item()
