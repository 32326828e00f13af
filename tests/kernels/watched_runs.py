"""Whole runs of small networks as a GPU takes them, by a driver and streams that are none."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch
from torch import Tensor

from harness.methods.backprop import Backprop
from harness.nn import fused, gpu, tf32
from harness.nn.layers import Linear
from harness.nn.networks import build_network
from harness.nn.planned import PlannedOptimizer
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from harness.train import loop
from harness.train import steps as steps_module
from harness.train.inputs import Resident
from harness.train.loop import Trainer
from harness.train.steps import GraphedSteps
from harness.train.together import take_turns
from tests.kernels import fake_driver, fake_streams
from tests.kernels.fake_graphs import is_gathered
from tests.kernels.fake_streams import Recorder
from tests.kernels.watched_driver import WatchedDriver

BATCH, STEPS, EPOCHS = 16, 3, 2
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 8, 8)}
SIZES: dict[str, dict[str, Any]] = {
    "mnist": {"network.hidden": [32, 64]},
    "cifar10": {"network.width": 16, "network.fc": 32},
}
DROPOUT = {"network.input_dropout": 0.2, "network.hidden_dropout": 0.5}
FAST = {"precision": "fast"}


CASES: dict[str, dict[str, Any]] = {
    "mlp fast": {**FAST, **DROPOUT},
    "mlp exact": DROPOUT,
    "mlp stochastic": {**FAST, "mode": "bnn-stoch-w"},
    "mlp real fast": {**FAST, "mode": "float", "network.hidden": [96]},
    "mlp real inputs": {**FAST, **DROPOUT, "mode": "bc-stoch"},
    "mlp real": {"mode": "float", "network.hidden": [96]},  # a large weight in a group of its own
    "mlp shift fast": {**FAST, "recipe": "torch7", "mode": "bnn-stoch"},
    "mlp shift exact": {"recipe": "torch7", "mode": "bnn-stoch"},
    "convnet fast": {**FAST, "dataset": "cifar10"},
    "convnet exact": {"dataset": "cifar10"},
    "convnet shift": {**FAST, "dataset": "cifar10", "recipe": "torch7", "mode": "bnn-stoch"},
}


def install(patch: MonkeyPatch, cache: str) -> WatchedDriver:
    """Let all layers take the ways of a GPU, compiled into ``cache``."""
    driver = WatchedDriver()
    fake_driver.install(patch, cache, driver)
    patch.setattr(gpu, "runs_on", lambda tensor: True)
    patch.setattr(Linear, "signed_product", _linear(Linear.signed_product))
    patch.setattr(fused, "takes", lambda *tensors: False)  # numba takes none of a GPU
    return driver


def _linear(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def signed_product(
        layer: Linear, x: Tensor, rate: float, integers: bool = False, pool: bool = False
    ) -> Tensor:
        if not torch.is_grad_enabled():
            return product(layer, x, rate, integers, pool)
        weight = layer.used_weight()
        return layer.product(x, weight) if integers else tf32.linear(x, weight)

    return signed_product


@contextmanager
def recording(driver: WatchedDriver, dropped: frozenset[str] = frozenset()) -> Iterator[Recorder]:
    """Let steps go to a new recorder, which leaves out the waits of some source lines."""
    recorder = driver.recorder = Recorder(dropped)
    with MonkeyPatch.context() as patch, recorder:
        fake_streams.install(patch, recorder)
        patch.setattr(loop, "steps_of", GraphedSteps)
        patch.setattr(steps_module, "GRAPH_STEPS", 2)  # and one alone at an epoch's end
        beside(patch, lambda method, _: recorder.faults.extend(gathered(method)))
        yield recorder


def beside(patch: MonkeyPatch, work: Callable[[Backprop, Tensor], Any]) -> None:
    """Let each step do some work more, which takes the method and the loss."""
    learn = Backprop.learn

    def both(
        method: Backprop, x: Tensor, labels: Tensor, join: bool = True
    ) -> tuple[Tensor, Tensor]:
        loss, mistakes = learn(method, x, labels, join)
        work(method, loss)
        return loss, mistakes

    patch.setattr(Backprop, "learn", both)


def method_of(
    recorder: Recorder, dataset: str = "mnist", recipe: str = "theano", mode: str = "bnn-det",
    seed: int = 0, device: str = "cpu", **settings: Any,
) -> Backprop:  # fmt: skip
    sizes = {"batch": BATCH, "epochs": EPOCHS, **SIZES[dataset]}
    found = load_recipe(recipe, dataset, {**sizes, **settings})
    streams = Streams(seed)
    network = build_network(found.network, MODES[mode], streams, SHAPES[dataset], (1 / 255, 0.0))
    network.to(device)
    network.lay_channels_last()
    method = Backprop(found, network, streams)
    assert isinstance(method.optimizer, PlannedOptimizer)
    method.optimizer._sides = method.optimizer.side_streams()  # which it has on a GPU
    return method


def trainer_of(method: Backprop, folder: Path, checkpoint_seconds: float = 1e9) -> Trainer:
    shape = SHAPES[method.recipe.dataset]

    def images(count: int) -> Resident:
        pixels = torch.zeros(count, *shape, dtype=torch.uint8)
        return Resident(pixels, torch.zeros(count, dtype=torch.long))

    splits = {"train": images(BATCH * STEPS), "valid": images(BATCH), "test": images(BATCH)}
    return Trainer(method.recipe, method, splits, folder, "", checkpoint_seconds)


def train(trainers: Sequence[Trainer]) -> None:
    runs: list[Any] = [trainer.advance(lambda metrics, best: None) for trainer in trainers]
    take_turns(dict(enumerate(runs)), torch.device("cuda"), pause=lambda but: None)


def gathered(method: Backprop) -> list[str]:
    """Return for which parameters an earlier pass gathers the gradient."""
    found = [name for name, p in method.network.named_parameters() if is_gathered(p)]
    return [f"an earlier pass gathers the gradient of {name}" for name in found]


def stale(recorder: Recorder, trainer: Trainer) -> list[str]:
    """Return what the captured step does otherwise than the step itself, taken now."""
    steps = trainer._steps
    assert isinstance(steps, GraphedSteps)
    steps.method.start_epoch(trainer.progress.epoch, True)
    steps.method.plan(steps.steps)
    differences: list[str] = []
    for count, graph in steps._graphs.items():
        with recorder.traced() as now:
            steps._body(count)
        assert len(now.trace) > 30
        differences += graph.capture.differences(now)
    return differences
