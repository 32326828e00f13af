"""The training step of a GPU against the library's: optimizer and whole steps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods.backprop import Backprop
from harness.nn import conv_block, linear_block
from harness.nn.loss import squared_hinge
from harness.nn.optim import build_optimizer, set_learning_rate
from harness.nn.planned import PlannedOptimizer
from harness.spec import OptimizerSpec
from kernels.triton import binary_maps, maps, pixel_maps, update
from kernels.triton.binary_maps import empty_filters, pack_filters_
from tests.triton.operands import on_device
from tests.triton.training import BATCH, by_the_library, far, images, method_of

# float32 both; sums in another order, and a few more roundings in a fused update.
STEP_TOLERANCE = 2e-5
# The gradient in two bfloat16 pieces keeps 16 of its 24 bits; a few layers add up.
FAST_TOLERANCE = 2e-4
# Products of reals in TF32, 11 bits; float32's where there is no GPU.
REALS_TOLERANCE = 2e-3
# A map's gradient in float16, 11 bits, from layer to layer.
MAPS_TOLERANCE = 2e-3


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
    "fast shift": (
        "mnist",
        {"recipe": "torch7", "mode": "bnn-det", "precision": "fast"},
        FAST_TOLERANCE,
    ),
    "fast shift, offset": (
        "mnist",
        {"recipe": "torch7", "mode": "bnn-det", "precision": "fast", "offset": 0.3},
        FAST_TOLERANCE,
    ),
    "fast reals, offset": (
        "mnist",
        {"mode": "bc-det", "precision": "fast", "offset": 0.3},
        FAST_TOLERANCE,
    ),
    "fast shift maps": (
        "cifar10",
        {"recipe": "torch7", "mode": "bnn-det", "precision": "fast"},
        MAPS_TOLERANCE,
    ),
    "float": ("mnist", {"mode": "float"}, STEP_TOLERANCE),
    "fast float": ("mnist", {"mode": "float", "precision": "fast"}, REALS_TOLERANCE),
    "fast float, large": (  # its first weights are updated beside the backward pass
        "mnist",
        {"mode": "float", "precision": "fast", "network.hidden": [96, 40]},
        REALS_TOLERANCE,
    ),
    "fast float, offset": (  # its weights' sums have a gradient too
        "mnist",
        {
            "recipe": "torch7",
            "mode": "float",
            "precision": "fast",
            "offset": 0.3,
            "network.hidden": [96, 40],
        },
        REALS_TOLERANCE,
    ),
    "fast reals": ("mnist", {"mode": "bc-det", "precision": "fast"}, FAST_TOLERANCE),
    "fast reals, draws": ("mnist", {"mode": "bc-stoch", "precision": "fast"}, FAST_TOLERANCE),
    "fast real maps": ("cifar10", {"mode": "bc-det", "precision": "fast"}, REALS_TOLERANCE),
    "maps": ("cifar10", {}, STEP_TOLERANCE),
    "fast maps": ("cifar10", {"precision": "fast"}, MAPS_TOLERANCE),
    "fast maps, draws": (
        "cifar10",
        {"precision": "fast", "mode": "bnn-stoch-w", "network.width": 16},
        MAPS_TOLERANCE,
    ),
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
    assert losses[0] == pytest.approx(expected[0], rel=max(1e-5, tolerance / 10))
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
        rounded = tolerance == REALS_TOLERANCE  # else the forward pass is exact
        allowed = tolerance if rounded else STEP_TOLERANCE
        assert far(found, wanted) < allowed, name


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
    signs = fast.network.blocks[1].layer.kept_signs()
    assert torch.equal(signs.float(), fast.network.blocks[1].layer.used_weight().detach())


WIDE = {"recipe": "theano", "network.width": 64}  # maps of whole words


@pytest.mark.parametrize("options", [{}, WIDE, {"recipe": "torch7", "mode": "bnn-stoch"}], ids=str)
def test_a_network_at_test_time_has_the_librarys_scores(options: dict[str, Any]) -> None:
    """Of a ConvNet, by words alone where they run."""
    network = method_of("cifar10", precision="fast", **options).network.eval()
    generator = torch.Generator().manual_seed(6)
    for name, value in network.named_buffers():  # the running averages, of any size
        drawn = torch.randn(value.shape, generator=generator)
        value.copy_(drawn if "mean" in name else 0.01 + drawn.abs())
    x, _ = images("cifar10").batch(slice(10, 14))
    with torch.no_grad():
        found = network(x)
        with by_the_library():
            expected = network(x)
    # The output layer's product of float32 signs, and its three roundings, are the library's.
    assert torch.equal(found, expected)


def test_a_network_with_dropout_and_draws_trains() -> None:
    method, held = method_of(mode="bnn-stoch", precision="fast"), images()
    losses = [method.step(*held.batch(slice(0, BATCH)))[0].item() for _ in range(15)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_step_writes_the_next_signs_beside_the_weights(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, held = method_of(dataset, precision="fast"), images(dataset)
    method.step(*held.batch(slice(0, BATCH)))
    blocks = [b for b in method.network.blocks if b.by_signs or conv_block.fits(b)]
    layers = [block.layer for block in blocks]
    monkeypatch.setattr(update, "sign_", None)  # nobody makes them again
    for layer in layers:
        latent, signs = layer.weight.detach(), layer.kept_signs()
        assert signs.stride() == latent.stride()
        assert torch.equal(signs.float(), torch.where(latent >= 0, 1.0, -1.0))
        assert layer.weight.grad is None
    assert len(layers) == len(method.network.blocks)
    if dataset == "cifar10":
        assert {layer.signs_dtype for layer in layers} == {torch.float16, torch.bfloat16}


@pytest.mark.parametrize("mode", ["bc-det", "bc-stoch"])
def test_real_inputs_of_binary_weights_leave_no_gradient_in_memory(mode: str) -> None:
    method, held = method_of(mode=mode, precision="fast"), images()
    method.step(*held.batch(slice(0, BATCH)))
    for block in method.network.blocks:
        layer = block.layer
        assert linear_block.fits(block)
        assert block.by_signs == (block is method.network.blocks[0])  # its inputs are integers
        assert layer.weight.grad is None
        signs = layer.kept_signs()
        assert torch.equal(signs.abs(), torch.ones_like(signs))
        if mode == "bc-det":
            assert torch.equal(signs.float(), torch.where(layer.weight >= 0, 1.0, -1.0))


def test_large_real_weights_hand_their_gradient_over() -> None:
    method = method_of(mode="float", precision="fast", **{"network.hidden": [96, 40]})
    start = method.network.blocks[0].layer.weight.detach().clone()
    method.step(*images().batch(slice(0, BATCH)))
    large, small, _ = (block.layer.weight for block in method.network.blocks)
    assert large.grad is None and small.grad is not None
    assert not torch.equal(large, start)


def three_blocks() -> Backprop:
    """Take the step of a ConvNet's first three blocks, from a gradient by their signs."""
    method = method_of("cifar10", precision="fast", **{"network.width": 64})
    method.plan(1)
    x, _ = images("cifar10").batch(slice(0, 5))
    for block in method.network.blocks[:3]:
        x = block(x)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    x.backward(on_device(gradient).half().contiguous(memory_format=torch.channels_last))
    return method


@pytest.mark.skipif(not binary_maps.runs(64), reason="single bits are Hopper's")
def test_a_step_by_single_bits_has_the_numbers_of_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(binary_maps, "runs", lambda channels: False)
        expected = three_blocks().network
    with monkeypatch.context() as patch:
        patch.setattr(maps, "convolve", None)  # nobody multiplies float16
        found = three_blocks().network
    start = method_of("cifar10", precision="fast", **{"network.width": 64}).network
    for index in range(3):
        ours, theirs, old = (network.blocks[index] for network in (found, expected, start))
        assert torch.equal(ours.layer.weight, theirs.layer.weight)
        assert not torch.equal(ours.layer.weight, old.layer.weight)
        for one, other in zip(ours.norm.parameters(), theirs.norm.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)


@pytest.mark.skipif(not binary_maps.runs(64), reason="single bits are Hopper's")
def test_packed_filters_are_those_of_the_weights() -> None:
    layer = three_blocks().network.blocks[1].layer
    for _ in range(2):
        kept = layer.kept_filters()
        fresh = empty_filters(*layer.weight.shape[:2])
        signs = torch.where(layer.weight.detach() >= 0, 1.0, -1.0).half().permute(0, 2, 3, 1)
        pack_filters_(signs.contiguous(), fresh)
        assert all(torch.equal(one, other) for one, other in zip(kept, fresh, strict=True))
        with torch.no_grad():
            layer.weight.neg_()  # as a checkpoint that is loaded


def test_pixels_of_many_channels_go_by_the_library() -> None:
    block = method_of("cifar10", precision="fast").network.blocks[0]
    assert conv_block.fits(block)
    block.layer.weight = torch.nn.Parameter(on_device(torch.ones(4, 8, 3, 3)))
    assert not conv_block.fits(block)
    assert conv_block.PIXEL_COLUMNS == pixel_maps.MOST_COLUMNS


def test_a_gradient_beside_the_one_handed_over_is_an_error() -> None:
    method = method_of(precision="fast")
    method.plan(1)
    x, labels = images().batch(slice(0, BATCH))
    squared_hinge(method.network(x), labels).backward()
    weight = method.network.blocks[0].layer.weight
    weight.grad = torch.zeros_like(weight)
    with pytest.raises(ValueError, match="a gradient beside the one that was handed over"):
        method.optimizer.step()


def test_a_missing_gradient_is_named() -> None:
    method = method_of()
    method.plan(1)
    with pytest.raises(ValueError, match=r"parameters of shape .* have no gradient"):
        method.optimizer.step()


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_signs_after_steps_that_draw_weights_are_those_of_the_weights(dataset: str) -> None:
    """No optimizer writes them, so an evaluation must make them itself each time."""
    method = method_of(dataset, mode="bnn-stoch-w", precision="fast")
    layer = method.network.blocks[1].layer
    for _ in range(2):
        method.step(*images(dataset).batch(slice(0, BATCH)))
        method.network.eval()
        assert torch.equal(layer.kept_signs().float(), layer.used_weight().detach())
        method.network.train()
