"""Captured training steps against the steps one by one, with a stand-in for the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.methods.backprop import Backprop
from harness.train import steps as steps_module
from harness.train.inputs import Resident
from harness.train.steps import EagerSteps, GraphedSteps
from tests.triton.operands import INTERPRETED
from tests.triton.training import BATCH, IMAGES, far, images, method_of

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "_unique")


class StandIn:
    """``torch.cuda`` without a GPU: a graph's work runs on its replays alone."""

    def __init__(self) -> None:
        self.registered: list[torch.Generator] = []
        self.captured = 0
        device = self

        class Graph:
            count: int  # steps in it

            def register_generator_state(self, generator: torch.Generator) -> None:
                device.registered.append(generator)

            def replay(self) -> None:
                device.steps._body(self.count)

        self.CUDAGraph = Graph
        self.steps: Any = None

    def Stream(self, priority: int = 0) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    def current_stream(self) -> Any:
        return self.Stream()

    @contextmanager
    def stream(self, side: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        """Undo what the body does: a capture records, and runs nothing."""
        steps, method = self.steps, self.steps.method
        counters = [steps._done, steps._loss_sum, steps._wrong, method.optimizer._rows]
        tensors = [*counters, *method.network.state_dict().values()]
        tensors += [m for pair in method.optimizer._moments for m in pair]
        saved = [tensor.clone() for tensor in tensors]
        draws = method.streams.state_dict()
        yield
        self.captured += 1
        graph.count = int(steps._done - saved[0])
        with torch.no_grad():
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)
        method.streams.load_state_dict(draws)
        method.network.refresh_signs()


def graphed(method: Backprop, held: Resident) -> tuple[GraphedSteps, StandIn]:
    device = StandIn()
    steps = GraphedSteps(method, held, BATCH, IMAGES // BATCH, device)
    device.steps = steps
    return steps, device


def state_of(method: Backprop) -> dict[str, Any]:
    moments = method.state_dict()["optimizer"]["moments"]
    flat = {f"{i}{j}": m for i, pair in enumerate(moments) for j, m in enumerate(pair)}
    return {**method.network.state_dict(), **flat}


def epoch(steps: Any, order: Tensor, done: int = 0, until: int = IMAGES // BATCH) -> Any:
    steps.begin(order, done, 0.0, 0)
    while done < until:
        done += steps.step()
    return steps.totals()


@pytest.fixture(autouse=INTERPRETED)
def warm_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm up by one step where no library has anything to make."""
    monkeypatch.setattr(steps_module, "WARM_STEPS", 1)


@pytest.fixture
def two_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an epoch of three steps be a graph of two and one of one."""
    monkeypatch.setattr(steps_module, "GRAPH_STEPS", 2)


OPTIONS: dict[str, dict[str, Any]] = {
    "fast": {"precision": "fast"},
    "stochastic": {"precision": "fast", "mode": "bnn-stoch-w"},
    "exact": {},
    "maps": {"dataset": "cifar10", "precision": "fast"},
    "shift": {"recipe": "torch7", "mode": "bnn-stoch"},
}


# The interpreter is slow: exact steps are the fast ones by other products, and a ConvNet's are in
# tests/kernels/test_races.py too.
FEWER = {
    name: options
    for name, options in OPTIONS.items()
    if not INTERPRETED or name not in ("exact", "maps")
}


@pytest.mark.usefixtures("two_a_graph")
@pytest.mark.parametrize("options", FEWER.values(), ids=FEWER)
def test_captured_steps_are_the_steps_one_by_one(options: dict[str, Any]) -> None:
    dataset = options.get("dataset", "mnist")
    held = images(dataset)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    one, other = method_of(**options), method_of(**options)
    steps, device = graphed(one, held)
    plain = EagerSteps(other, held, BATCH)
    for number in range(2):
        for method in (one, other):
            method.start_epoch(400 * number, True)
        assert epoch(steps, order) == epoch(plain, order)
        order = order.flip(0)
    assert device.captured == 2
    assert device.registered == device.captured * one.streams.on_device()
    for name, value in state_of(other).items():
        assert torch.equal(state_of(one)[name], value), name


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="captures a graph of a CUDA device")
@pytest.mark.usefixtures("two_a_graph")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_graph_of_the_device_trains_as_its_operations_do(options: dict[str, Any]) -> None:
    held = images(options.get("dataset", "mnist"))
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    one, other = method_of(**options), method_of(**options)
    captured = GraphedSteps(one, held, BATCH, IMAGES // BATCH)
    plain = EagerSteps(other, held, BATCH)
    for _ in range(5):
        found, expected = epoch(captured, order), epoch(plain, order)
        assert found[0] == pytest.approx(expected[0], rel=1e-3)
    for name, value in state_of(other).items():
        if "layer.bias" not in name:
            assert far(state_of(one)[name].float(), value.float()) < 1e-2, name


@pytest.mark.usefixtures("two_a_graph")
def test_captured_steps_go_on_from_a_checkpoint_within_an_epoch() -> None:
    """After a graph of two: what is left is one alone."""
    held, order = images(), torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    whole = method_of(precision="fast")
    steps, _ = graphed(whole, held)
    expected = epoch(steps, order)
    broken = method_of(precision="fast")
    first, _ = graphed(broken, held)
    loss, wrong = epoch(first, order, until=2)
    state, draws = broken.state_dict(), broken.streams.state_dict()
    fresh = method_of(precision="fast")
    fresh.load_state_dict(state)
    fresh.streams.load_state_dict(draws)
    second, _ = graphed(fresh, held)
    second.begin(order, 2, loss, wrong)
    assert second.step() == 1
    assert second.totals() == expected
    for name, value in state_of(whole).items():
        assert torch.equal(state_of(fresh)[name], value), name


class Failing(StandIn):
    """A device whose captures fail, and leave their stream the current one, as torch's do."""

    def __init__(self) -> None:
        super().__init__()
        self.current: list[Any] = ["the run's"]

    def current_stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None, name=self.current[-1])

    @contextmanager
    def stream(self, side: Any) -> Iterator[None]:
        before = list(self.current)
        self.current.append(side)
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        self.current.append(stream)
        yield
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_capture_that_fails_leaves_the_stream_of_before() -> None:
    device = Failing()
    steps = GraphedSteps(method_of(), images(), BATCH, IMAGES // BATCH, device)
    with pytest.raises(RuntimeError, match="during capture"):
        steps.begin(torch.arange(IMAGES), 0, 0.0, 0)
    assert device.current == ["the run's"]


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", FEWER.values(), ids=FEWER)
def test_a_step_waits_for_nothing_and_is_the_same_every_time(options: dict[str, Any]) -> None:
    steps, _ = graphed(method_of(**options), images(options.get("dataset", "mnist")))
    steps.begin(torch.arange(IMAGES), 0, 0.0, 0)
    seen = []
    for _ in range(2):
        with Seen() as mode:
            steps.step()
        seen.append(mode.calls)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 10
    assert not [call for call in seen[0] if any(name in call for name in WAITING)]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_an_evaluation_between_epochs_sees_the_replayed_weights(dataset: str) -> None:
    method = method_of(dataset, precision="fast")
    steps, _ = graphed(method, images(dataset))
    epoch(steps, torch.arange(IMAGES))
    method.network.eval()
    for block in method.network.blocks[1:]:
        layer = block.layer
        assert torch.equal(layer.kept_signs().float(), layer.used_weight().detach())
