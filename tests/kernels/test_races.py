"""A GPU's training steps have no race between their streams, and their graph nothing stale.

Whole runs of the real networks by the trainer, their launches by Triton's own path: see
``fake_streams``. Each check is shown to find what it is for.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from harness.methods.backprop import Backprop
from harness.nn import gpu, tf32
from harness.nn.layers import Conv3x3, Linear, _channels_last
from harness.nn.networks import build_network
from harness.nn.planned import PlannedOptimizer
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from harness.train import loop
from harness.train.inputs import Resident
from harness.train.loop import Trainer
from harness.train.steps import GraphedSteps
from harness.train.together import take_turns
from tests.kernels import fake_driver, fake_streams
from tests.kernels.fake_streams import Recorder
from tests.kernels.watched_driver import WatchedDriver

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

BATCH, STEPS, EPOCHS = 16, 3, 2
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 8, 8)}
SIZES: dict[str, dict[str, Any]] = {
    "mnist": {"network.hidden": [32, 64]},
    "cifar10": {"network.width": 16, "network.fc": 32},
}
DROPOUT = {"network.input_dropout": 0.2, "network.hidden_dropout": 0.5}
FAST = {"precision": "fast"}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedDriver]:
    with MonkeyPatch.context() as patch:
        driver = WatchedDriver()
        fake_driver.install(patch, str(tmp_path_factory.mktemp("triton")), driver)
        patch.setattr(gpu, "runs_on", lambda tensor: True)
        patch.setattr(Linear, "signed_product", linear_of_a_gpu(Linear.signed_product))
        patch.setattr(Conv3x3, "signed_product", conv_of_a_gpu)
        yield driver


def linear_of_a_gpu(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def signed_product(layer: Linear, x: Tensor, rate: float, integers: bool = False) -> Tensor:
        if not torch.is_grad_enabled():
            return product(layer, x, rate, integers)
        weight = layer.used_weight()
        return layer.product(x, weight) if integers else tf32.linear(x, weight)

    return signed_product


def conv_of_a_gpu(layer: Conv3x3, x: Tensor, rate: float, integers: bool = False) -> Tensor:
    return tf32.conv3x3(*_channels_last(x, layer.used_weight()))


@contextmanager
def recording(driver: WatchedDriver, dropped: frozenset[str] = frozenset()) -> Iterator[Recorder]:
    """Let steps go to a new recorder, which leaves out the waits of some source lines."""
    recorder = driver.recorder = Recorder(dropped)
    with MonkeyPatch.context() as patch, recorder:
        fake_streams.install(patch, recorder)
        patch.setattr(loop, "steps_of", GraphedSteps)
        yield recorder


@pytest.fixture
def recorder(driver: WatchedDriver) -> Iterator[Recorder]:
    with recording(driver) as recorder:
        yield recorder


def method_of(
    recorder: Recorder, dataset: str = "mnist", recipe: str = "theano", mode: str = "bnn-det",
    seed: int = 0, **settings: Any,
) -> Backprop:  # fmt: skip
    sizes = {"batch": BATCH, "epochs": EPOCHS, **SIZES[dataset]}
    found = load_recipe(recipe, dataset, {**sizes, **settings})
    streams = Streams(seed)
    network = build_network(found.network, MODES[mode], streams, SHAPES[dataset], (1 / 255, 0.0))
    network.lay_channels_last()
    method = Backprop(found, network, streams)
    assert isinstance(method.optimizer, PlannedOptimizer)
    method.optimizer._side = recorder.Stream()  # which it makes itself on a GPU
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
    take_turns(runs, torch.device("cuda"))


def stale(recorder: Recorder, trainer: Trainer) -> list[str]:
    """Return what the captured step does otherwise than the step itself, taken now."""
    steps = trainer._steps
    assert isinstance(steps, GraphedSteps)
    steps.method.start_epoch(trainer.progress.epoch, True)
    steps.method.plan(steps.steps)
    with recorder.traced() as now:
        steps._body()
    assert len(now.trace) > 30
    differences: list[str] = steps._graph.capture.differences(now)
    return differences


CASES: dict[str, dict[str, Any]] = {
    "mlp fast": {**FAST, **DROPOUT},
    "mlp exact": DROPOUT,
    "mlp stochastic": {**FAST, "mode": "bnn-stoch-w"},
    "mlp real": {"mode": "float", "network.hidden": [96]},  # a large weight in a group of its own
    "mlp shift fast": {**FAST, "recipe": "torch7", "mode": "bnn-stoch"},
    "mlp shift exact": {"recipe": "torch7", "mode": "bnn-stoch"},
    "convnet fast": {**FAST, "dataset": "cifar10"},
    "convnet exact": {"dataset": "cifar10"},
    "convnet shift": {**FAST, "dataset": "cifar10", "recipe": "torch7", "mode": "bnn-stoch"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_has_no_race_and_its_graph_nothing_stale(
    case: str, recorder: Recorder, tmp_path: Path
) -> None:
    trainer = trainer_of(method_of(recorder, **CASES[case]), tmp_path)
    train([trainer])
    assert not recorder.faults
    assert not stale(recorder, trainer)


@pytest.mark.parametrize("case", ["mlp fast", "mlp shift exact", "convnet fast"])
def test_runs_that_take_turns_do_not_meet(case: str, recorder: Recorder, tmp_path: Path) -> None:
    methods = [method_of(recorder, seed=seed, **CASES[case]) for seed in (0, 3)]
    checkpoints = (0, 1e9)  # after each step, and none
    trainers = [
        trainer_of(method, tmp_path, seconds)
        for method, seconds in zip(methods, checkpoints, strict=True)
    ]
    train(trainers)
    assert not recorder.faults
    assert not [found for trainer in trainers for found in stale(recorder, trainer)]


def test_no_wait_can_be_left_out_unnoticed(driver: WatchedDriver, tmp_path: Path) -> None:
    def run(dropped: frozenset[str] = frozenset()) -> Recorder:
        with recording(driver, dropped) as recorder:
            options = {**CASES["mlp fast"], "epochs": 1}
            methods = [method_of(recorder, seed=seed, **options) for seed in (0, 3)]
            train([trainer_of(method, tmp_path) for method in methods])
        return recorder

    whole = run()
    assert not whole.faults
    names = [Path(site.split(":")[0]).name for site in whole.sites]
    assert sorted(names) == ["planned.py", "planned.py", "steps.py", "steps.py", "together.py"]
    for site in whole.sites:
        assert any("without a wait between" in fault for fault in run(frozenset({site})).faults)


def beside(patch: MonkeyPatch, work: Callable[[Backprop, Tensor], Any]) -> None:
    """Let each step do some work more, which takes the method and the loss."""
    learn = Backprop.learn

    def both(method: Backprop, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, mistakes = learn(method, x, labels)
        work(method, loss)
        return loss, mistakes

    patch.setattr(Backprop, "learn", both)


def on_another_stream(loss: Tensor, after: bool) -> None:
    other = torch.cuda.Stream()
    if after:
        other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        loss + 1


FORBIDDEN: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "item": (lambda loss: loss.item(), "the host waits for _local_scalar_dense within a capture"),
    "truth": (lambda loss: bool(loss > 0), "the host waits for _local_scalar_dense"),
    "nonzero": (lambda loss: loss.nonzero(), "the host waits for nonzero within a capture"),
    "mask": (lambda loss: loss[None][loss[None] > 0], "the host waits for index within a capture"),
    "to the host": (lambda loss: loss.cpu(), "the host waits for cpu within a capture"),
    "from the host": (lambda loss: torch.tensor(1.0), "a copy from the host within a capture"),
    "other draws": (
        lambda loss: torch.rand(3, generator=torch.Generator()),
        "rand draws from a generator that is not registered",
    ),
    "other work": (
        lambda loss: torch.cuda.current_stream().wait_stream(torch.cuda.Stream()),
        "waits for stream .*, which is not captured",
    ),
    "not forked": (lambda loss: on_another_stream(loss, False), "goes to stream .*, which is not"),
    "not joined": (lambda loss: on_another_stream(loss, True), "is not joined at the end of the"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_forbids_is_found(
    what: str, recorder: Recorder, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    work, expected = FORBIDDEN[what]
    beside(monkeypatch, lambda method, loss: work(loss))
    train([trainer_of(method_of(recorder, epochs=1, **FAST), tmp_path)])
    assert any(re.search(expected, fault) for fault in recorder.faults), recorder.faults


def test_a_rate_that_the_graph_holds_is_stale(
    recorder: Recorder, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    beside(monkeypatch, lambda method, loss: loss * method.optimizer.param_groups[0]["lr"])
    trainer = trainer_of(method_of(recorder, **FAST), tmp_path)
    train([trainer])
    (found,) = stale(recorder, trainer)
    assert "captured ('mul'" in found


def test_memory_that_moves_after_the_capture_is_stale(recorder: Recorder, tmp_path: Path) -> None:
    method = method_of(recorder, **FAST)
    trainer = trainer_of(method, tmp_path)
    train([trainer])
    kept = method.optimizer._plan
    method.optimizer._plan = kept.clone()
    trainer._steps.step()
    assert not recorder.faults
    assert any("captured ('_update'" in found for found in stale(recorder, trainer))
    del kept
    trainer._steps.step()
    (fault,) = recorder.faults
    assert "a replay touches memory that was freed" in fault


class Forgetful(dict[int, Any]):
    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, None)


def test_memory_freed_while_another_stream_uses_it_is_found(
    recorder: Recorder, tmp_path: Path
) -> None:
    method = method_of(recorder, **FAST)
    method.optimizer._early = Forgetful()
    train([trainer_of(method, tmp_path)])
    assert any("gets the freed memory" in f and "_product_update" in f for f in recorder.faults)


def test_runs_that_share_memory_are_found(recorder: Recorder, tmp_path: Path) -> None:
    trainers = [trainer_of(method_of(recorder, seed=s, **FAST), tmp_path) for s in (0, 3)]
    trainers[1]._steps._wrong = trainers[0]._steps._wrong
    train(trainers)
    assert any(re.match("a replay on .* what a replay on", fault) for fault in recorder.faults)
