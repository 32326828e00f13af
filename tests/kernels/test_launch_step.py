"""Whole training steps at the paper's sizes by Triton's own launch path: see ``fake_driver``.

The launches compute nothing, so values are whatever lies in memory; shapes, alignments and
absent operands are those of a GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest import MonkeyPatch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from harness.methods.backprop import Backprop
from harness.nn import gpu, tf32
from harness.nn.layers import Conv3x3, Linear, WeightedLayer
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from harness.train.inputs import Resident
from kernels.triton import sass
from tests.kernels import fake_driver
from tests.kernels.fake_driver import FakeDriver

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
IMAGES = 200


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def installed(cache: Path) -> Iterator[FakeDriver]:
    with MonkeyPatch.context() as patch:
        driver = fake_driver.install(patch, str(cache))
        patch.setattr(gpu, "runs_on", lambda tensor: True)
        patch.setattr(Linear, "signed_product", stand_in)
        patch.setattr(Conv3x3, "signed_product", stand_in)
        yield driver


def stand_in(
    layer: WeightedLayer, x: Tensor, rate: float, integers: bool = False, pool: bool = False
) -> Tensor:
    """Return something of a product's shape and order that depends on both operands."""
    weight = layer.used_weight()
    if isinstance(layer, Linear):
        return tf32.linear(x, weight)
    sums = weight.flatten(1).sum(1).view(1, -1, 1, 1)
    products = (x[:, :1] * sums).contiguous(memory_format=torch.channels_last)
    return F.max_pool2d(products, 2) if pool else products


@pytest.fixture
def device(installed: FakeDriver) -> FakeDriver:
    installed.taken()
    return installed


def method_of(dataset: str, recipe: str, mode: str, settings: dict[str, Any]) -> Backprop:
    found = load_recipe(recipe, dataset, {"precision": "fast", **settings})
    streams = Streams(0)
    network = build_network(found.network, MODES[mode], streams, SHAPES[dataset], (1 / 255, 0.0))
    network.lay_channels_last()
    method = Backprop(found, network, streams)
    method.start_epoch(0, True)
    return method


def launches(device: FakeDriver) -> list[str]:
    found = device.taken()
    for launch in found:
        fake_driver.check(launch)
    return [launch.name for launch in found]


def check_code(folder: Path, seen: set[Path]) -> None:
    """Assert that no kernel compiled into ``folder`` since ``seen`` spills."""
    for path in sorted(set(folder.rglob("*.cubin")) - seen):
        assert sass.usage(path)[1] == 0, path.name


def run_steps(
    method: Backprop, size: int, device: FakeDriver, patch: MonkeyPatch
) -> tuple[list[str], list[str]]:
    """Take two steps; return the launches of the second and what it had to compile."""
    dataset = method.recipe.dataset
    held = Resident(
        torch.zeros(IMAGES, *SHAPES[dataset], dtype=torch.uint8),
        torch.zeros(IMAGES, dtype=torch.long),
    )
    compiled: list[str] = []
    patch.setattr(triton.knobs.compilation, "listener", lambda src, **_: compiled.append(src.name))
    method.plan(2)
    for _ in range(2):
        compiled.clear()
        launches(device)
        chosen = torch.zeros(1, size, dtype=torch.long).index_select(0, torch.zeros(1).long())
        method.learn(*held.batch(chosen.flatten()))
    return launches(device), compiled


CASES = {
    "mlp": ("mnist", "theano", "bnn-det", {}),
    "mlp stochastic": ("mnist", "theano", "bnn-stoch", {"network.hidden": [2048] * 3}),
    "mlp odd": ("mnist", "theano", "bnn-det", {"network.hidden": [33, 257], "batch": 7}),
    "mlp shift-based": ("mnist", "torch7", "bnn-stoch", {"network.hidden": [2048] * 3}),
    "mlp real inputs": ("mnist", "theano", "bc-det", {}),
    "mlp drawn weights": ("mnist", "theano", "bc-stoch", {}),
    "mlp float": ("mnist", "theano", "float", {}),
    "convnet": ("cifar10", "theano", "bnn-det", {}),
    "convnet shift-based": ("cifar10", "torch7", "bnn-stoch", {}),
}
LAYER = ["_drop", "_strip"]
BACK = ["_strip", "_join", "_product_update"]


@pytest.mark.parametrize("case", CASES)
def test_a_step_launches_without_spills_and_compiles_once(
    case: str, device: FakeDriver, cache: Path, monkeypatch: MonkeyPatch
) -> None:
    dataset, recipe, mode, settings = CASES[case]
    seen = set(cache.rglob("*.cubin"))
    method = method_of(dataset, recipe, mode, settings)
    found, compiled = run_steps(method, method.recipe.batch, device, monkeypatch)
    assert not compiled  # as a graph's capture demands of what ran before
    assert found[0] == "_fetch"
    assert found.count("_hinge") == 1
    assert found[-1] == "_update"
    if case == "mlp":
        forward = ["_fetch", *LAYER * 4, "_hinge"]
        # The first layer's inputs take no gradient.
        assert found == [*forward, *BACK * 3, BACK[0], BACK[2], "_update"]
    if case == "mlp real inputs":  # the first layer's are integers
        summed = ["_drop", "_join", "_strip"]
        assert found[: 2 + 4 * 3] == ["_fetch", *LAYER, *summed * 3, "_hinge", BACK[0]][: 2 + 4 * 3]
        assert found.count("_product_update") == 4
    if dataset == "cifar10":
        assert found.count("_statistics") == found.count("_normalise") == 6
        assert found.count("_shift_squares") == (6 if recipe == "torch7" else 0)
        assert found.count("_filters") == 5  # each packed behind its update
        assert found.count("_sums") == found.count("_gradient") == 6
    check_code(cache, seen)
