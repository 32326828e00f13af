"""The training step of a GPU against the library's: optimizer, whole steps, captured steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.methods.backprop import Backprop
from harness.nn import gpu
from harness.nn.networks import build_network
from harness.nn.optim import build_optimizer, set_learning_rate
from harness.nn.planned import PlannedOptimizer
from harness.nn.streams import Streams
from harness.spec import MODES, OptimizerSpec, load_recipe
from harness.train.inputs import Resident
from harness.train.steps import EagerSteps, GraphedSteps
from tests.triton.operands import DEVICE, INTERPRETED, on_device

BATCH, IMAGES = 20, 70
# float32 both; sums in another order, and a few more roundings in a fused update.
STEP_TOLERANCE = 2e-5
# The gradient in two bfloat16 pieces keeps 16 of its 24 bits; a few layers add up.
FAST_TOLERANCE = 2e-4
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "_unique")


def method_of(
    dataset: str = "mnist", recipe: str = "theano", mode: str = "bnn-det", **settings: Any
) -> Backprop:
    sizes: dict[str, Any] = {"network.hidden": [24, 40]}
    if dataset == "cifar10":
        sizes = {"network.width": 4, "network.fc": 16}
    found = load_recipe(recipe, dataset, {"batch": BATCH, **sizes, **settings})
    shape = (1, 28, 28) if dataset == "mnist" else (3, 8, 8)
    streams = Streams(0, DEVICE)
    network = build_network(found.network, MODES[mode], streams, shape, (1 / 255, 0.0))
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


@pytest.mark.parametrize("kind", ["adam-lasagne", "adam-torch", "shift-adamax"])
def test_planned_steps_are_those_of_the_rule(kind: str) -> None:
    spec = OptimizerSpec(kind, 0.9, 0.99, 1e-5, "glorot")  # type: ignore[arg-type]

    def trained() -> list[Tensor]:
        method = method_of(**{"network.hidden": [8, 8]})
        optimizer = build_optimizer(method.network, spec, 0.02)
        generator = torch.Generator().manual_seed(1)
        for epoch, rate in enumerate((0.02, 0.005)):
            set_learning_rate(optimizer, rate)
            if isinstance(optimizer, PlannedOptimizer):
                optimizer.plan(5)  # more than are taken
            for _ in range(2 + epoch):
                for parameter in method.network.parameters():
                    gradient = torch.randn(parameter.shape, generator=generator)
                    parameter.grad = on_device(gradient)
                optimizer.step()
                if not isinstance(optimizer, PlannedOptimizer):
                    method.network.clip_latent()
        if isinstance(optimizer, PlannedOptimizer):
            assert optimizer.steps_done == 5
        return [p.detach().clone() for p in method.network.parameters()]

    found = trained()
    with by_the_library():
        expected = trained()
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert far(one, other) < STEP_TOLERANCE


def test_a_group_of_small_parameters_is_one_tensor_that_loads_in_place() -> None:
    method = method_of()
    optimizer = method.optimizer
    assert isinstance(optimizer, PlannedOptimizer)
    norms = [block.norm.weight for block in method.network.blocks]
    assert len({p.untyped_storage().data_ptr() for p in norms}) == 1
    method.step(*images().batch(slice(0, BATCH)))
    saved = {name: value.clone() for name, value in method.network.state_dict().items()}
    state = method.state_dict()["optimizer"]
    addresses = [moment.data_ptr() for pair in optimizer.state_dict()["moments"] for moment in pair]
    kept = [[moment.clone() for moment in pair] for pair in state["moments"]]
    method.step(*images().batch(slice(20, 20 + BATCH)))
    method.load_state_dict({"network": saved, "optimizer": {"steps": 1, "moments": kept}})
    assert optimizer.steps_done == 1
    again = optimizer.state_dict()["moments"]
    assert [moment.data_ptr() for pair in again for moment in pair] == addresses
    for found, wanted in zip(again, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    for name, value in method.network.state_dict().items():
        assert torch.equal(value, saved[name]), name


def trained(steps: int, dataset: str = "mnist", **options: Any) -> tuple[Backprop, list[float]]:
    method = method_of(dataset, **options)
    held = images(dataset)
    losses = []
    for step in range(steps):
        x, labels = held.batch(slice(BATCH * step, BATCH * (step + 1)))
        losses.append(method.step(x, labels)[0].item())
    return method, losses


CASES = {
    "exact": ("mnist", {}, STEP_TOLERANCE),
    "fast": ("mnist", {"precision": "fast"}, FAST_TOLERANCE),
    "no gate": ("mnist", {"precision": "fast", "network.ste": "identity"}, FAST_TOLERANCE),
    "no clip": ("mnist", {"precision": "fast", "optimizer.clip": False}, FAST_TOLERANCE),
    "draws": ("mnist", {"precision": "fast", "mode": "bnn-stoch-w"}, FAST_TOLERANCE),
    "shift": ("mnist", {"recipe": "torch7", "mode": "bnn-det"}, STEP_TOLERANCE),
    "float": ("mnist", {"mode": "float"}, STEP_TOLERANCE),
    "maps": ("cifar10", {}, STEP_TOLERANCE),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_librarys_within_rounding(case: str) -> None:
    dataset, options, tolerance = CASES[case]
    dropless = (
        {}
        if dataset == "cifar10"
        else dict.fromkeys(("network.input_dropout", "network.hidden_dropout"), 0.0)
    )
    method, losses = trained(1, dataset, **dropless, **options)
    with by_the_library():
        other, expected = trained(1, dataset, **dropless, **{**options, "precision": "exact"})
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    pairs = zip(method.network.named_parameters(), other.network.parameters(), strict=True)
    for (name, found), wanted in pairs:
        # Before a batch norm a bias has a gradient of 0 but for rounding, and so has a norm's
        # where no gate stands between it and the next.
        if "layer.bias" in name or (case == "no gate" and "norm.bias" in name):
            continue
        start = dict(method_of(dataset, **dropless, **options).network.named_parameters())[name]
        moved, should = found - start, wanted - start
        # Adam's first step is the gradient's sign: where that is rounding, it goes either way.
        differs = (moved - should).abs() > tolerance + 1e-3 * should.abs().max()
        assert differs.float().mean() < 0.01, name
    for (name, found), wanted in zip(
        method.network.named_buffers(), other.network.buffers(), strict=True
    ):
        assert far(found, wanted) < STEP_TOLERANCE, name


@pytest.mark.parametrize("mode", ["bnn-det", "bnn-w-stoch"])
def test_the_fast_forward_pass_has_the_integers_of_the_exact_one(mode: str) -> None:
    fast, exact = (method_of(mode=mode, precision=precision) for precision in ("fast", "exact"))
    x, _ = images().batch(slice(0, BATCH))
    for method in (fast, exact):
        method.network.eval()
    with torch.no_grad(), by_the_library():
        expected = exact.network(x)
    with torch.no_grad():
        assert torch.equal(fast.network(x), expected)
    signs = fast.network.blocks[1].layer.half_signs()
    assert torch.equal(signs.float(), fast.network.blocks[1].layer.used_weight().detach())


def test_a_network_with_dropout_and_draws_trains() -> None:
    method, held = method_of(mode="bnn-stoch", precision="fast"), images()
    losses = [method.step(*held.batch(slice(0, BATCH)))[0].item() for _ in range(15)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


class StandIn:
    """``torch.cuda`` without a GPU: a graph's work runs on its replays alone."""

    def __init__(self) -> None:
        self.registered: list[torch.Generator] = []
        self.captured = 0
        device = self

        class Graph:
            steps: GraphedSteps

            def register_generator_state(self, generator: torch.Generator) -> None:
                device.registered.append(generator)

            def replay(self) -> None:
                device.steps._body()

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
        counters = [steps._done, steps._loss_sum, steps._wrong, method.optimizer._row]
        tensors = [*counters, *method.network.state_dict().values()]
        tensors += [m for pair in method.optimizer._moments for m in pair]
        saved = [tensor.clone() for tensor in tensors]
        draws = method.streams.state_dict()
        yield
        self.captured += 1
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
    for _ in range(done, until):
        steps.step()
    return steps.totals()


OPTIONS: dict[str, dict[str, Any]] = {
    "fast": {"precision": "fast"},
    "stochastic": {"precision": "fast", "mode": "bnn-stoch-w"},
    "exact": {},
    "shift": {"recipe": "torch7", "mode": "bnn-stoch"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_captured_steps_are_the_steps_one_by_one(options: dict[str, Any]) -> None:
    held, order = images(), torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    one, other = method_of(**options), method_of(**options)
    steps, device = graphed(one, held)
    plain = EagerSteps(other, held, BATCH)
    for number in range(2):
        for method in (one, other):
            method.start_epoch(400 * number, True)
        assert epoch(steps, order) == epoch(plain, order)
        order = order.flip(0)
    assert device.captured == 1
    assert device.registered == one.streams.on_device()
    for name, value in state_of(other).items():
        assert torch.equal(state_of(one)[name], value), name


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="captures a graph of a CUDA device")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_graph_of_the_device_trains_as_its_operations_do(options: dict[str, Any]) -> None:
    held, order = images(), torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    one, other = method_of(**options), method_of(**options)
    captured = GraphedSteps(one, held, BATCH, IMAGES // BATCH)
    plain = EagerSteps(other, held, BATCH)
    for _ in range(5):
        found, expected = epoch(captured, order), epoch(plain, order)
        assert found[0] == pytest.approx(expected[0], rel=1e-3)
    for name, value in state_of(other).items():
        if "layer.bias" not in name:
            assert far(state_of(one)[name].float(), value.float()) < 1e-2, name


def test_captured_steps_go_on_from_a_checkpoint_within_an_epoch() -> None:
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
    second.step()
    assert second.totals() == expected
    for name, value in state_of(whole).items():
        assert torch.equal(state_of(fresh)[name], value), name


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_waits_for_nothing_and_is_the_same_every_time(options: dict[str, Any]) -> None:
    steps, _ = graphed(method_of(**options), images())
    steps.begin(torch.arange(IMAGES), 0, 0.0, 0)
    seen = []
    for _ in range(2):
        with Seen() as mode:
            steps.step()
        seen.append(mode.calls)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 10
    assert not [call for call in seen[0] if any(name in call for name in WAITING)]


def test_an_evaluation_between_epochs_sees_the_replayed_weights() -> None:
    method = method_of(precision="fast")
    steps, _ = graphed(method, images())
    layer = method.network.blocks[1].layer
    epoch(steps, torch.arange(IMAGES))
    method.network.eval()
    assert torch.equal(layer.half_signs().float(), layer.used_weight().detach())


def test_a_missing_gradient_is_named() -> None:
    method = method_of()
    method.plan(1)
    with pytest.raises(ValueError, match=r"parameters of shape .* have no gradient"):
        method.optimizer.step()
