"""A network at test time: scores, loss and error of a split."""

import math

import torch
from torch import Tensor, nn

from harness.nn.layers import Conv3x3
from harness.nn.loss import squared_hinge
from harness.train.inputs import Resident

EVALUATION_BATCH = 500  # whose maps stay in a CPU's caches
GPU_BATCH = 5000  # work for all processors; maps of ConvNet(128) take 5 GB
MOST_VALUES = 2**31 - 1  # of a map, which kernels of a GPU index in 32 bits


def gpu_batch(network: nn.Module, images: Resident) -> int:
    """Return how many images a GPU evaluates at once: their first map, the largest, decides."""
    first = next((layer for layer in network.modules() if isinstance(layer, Conv3x3)), None)
    maps = 1 if first is None else len(first.weight)
    return min(GPU_BATCH, max(1, MOST_VALUES // (maps * math.prod(images.pixels.shape[2:]))))


@torch.no_grad()
def predict_scores(network: nn.Module, images: Resident) -> Tensor:
    """Return the scores [n, 10] of the network at test time, in batches."""
    network.eval()
    batch = gpu_batch(network, images) if images.labels.is_cuda else EVALUATION_BATCH
    starts = range(0, len(images), batch)
    scores = [network(images.batch(slice(s, s + batch))[0]) for s in starts]
    return torch.cat(scores)


def evaluate(network: nn.Module, images: Resident) -> tuple[float, float]:
    """Return the mean square hinge loss and the error rate in percent."""
    scores = predict_scores(network, images)
    return squared_hinge(scores, images.labels).item(), error_pct(scores, images.labels)


def error_pct(scores: Tensor, labels: Tensor) -> float:
    """Return in percent how many of the labels are not the greatest score."""
    return 100 * int((scores.argmax(1) != labels).sum()) / len(labels)
