"""Packed networks by the kernels of a GPU: the training network's scores, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.deploy.modelfile import Model
from harness.deploy.packed import PackedNetwork
from harness.nn.networks import BinaryNetwork
from harness.spec import NetworkSpec
from harness.train.inputs import network_input
from kernels.base import Kernel
from kernels.triton.kernels import kernels
from tests.deploy.conftest import convnet, make_model, make_network, mlp
from tests.triton.operands import DEVICE

__all__ = ["make_model", "make_network"]  # fixtures
NETWORKS: dict[str, tuple[NetworkSpec, tuple[int, int, int]]] = {
    "mlp": (mlp("lasagne", (33, 65)), (1, 6, 5)),
    "convnet": (convnet("lasagne"), (3, 8, 8)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("kernel", kernels(), ids=lambda kernel: kernel.name)
def test_a_packed_network_predicts_what_the_trained_one_does(
    kernel: Kernel,
    kind: str,
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = kernel.why_not()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(type(kernel), "device", DEVICE)
    spec, shape = NETWORKS[kind]
    network = make_network(spec, shape)
    pixels = np.random.default_rng(3).integers(0, 256, (2, *shape), dtype=np.uint8)
    with torch.no_grad():
        expected = network(network_input(torch.from_numpy(pixels)))
    found = PackedNetwork(make_model(network, spec, shape)).predict(
        pixels, kernel.name, device="cuda"
    )
    assert torch.equal(found, expected)
