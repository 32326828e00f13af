"""Small networks with the training step of a GPU, shared by its tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.backprop import Backprop
from harness.nn import gpu, tf32
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from harness.train.inputs import Resident
from tests.triton.operands import DEVICE, on_device

BATCH, IMAGES = 20, 70


def method_of(
    dataset: str = "mnist",
    recipe: str = "theano",
    mode: str = "bnn-det",
    offset: float = 0.0,
    **settings: Any,
) -> Backprop:
    sizes: dict[str, Any] = {"network.hidden": [24, 40]}
    if dataset == "cifar10":
        sizes = {"network.width": 4, "network.fc": 16}
    found = load_recipe(recipe, dataset, {"batch": BATCH, **sizes, **settings})
    shape = (1, 28, 28) if dataset == "mnist" else (3, 8, 8)
    tf32.forbid()  # as a run does
    streams = Streams(0, DEVICE)
    network = build_network(found.network, MODES[mode], streams, shape, (1 / 255, offset))
    network.to(DEVICE)
    network.lay_channels_last()
    method = Backprop(found, network, streams)
    method.start_epoch(0, True)
    return method


def images(dataset: str = "mnist") -> Resident:
    generator = torch.Generator().manual_seed(5)
    shape = (1, 28, 28) if dataset == "mnist" else (3, 8, 8)
    pixels = torch.randint(0, 256, (IMAGES, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (IMAGES,), generator=generator)
    return Resident(on_device(pixels), on_device(labels))


@contextmanager
def by_the_library() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "takes", lambda *tensors: False)
        yield


def far(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
