"""``precision: fast``: the same signs forward, gradients within the stated tolerance backward."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import HarnessError
from harness.methods import build_method
from harness.nn import real_inputs, signed, tf32
from harness.nn.attached import attachment
from harness.nn.layers import Linear
from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from kernels.packing import pack_rows

pytestmark = pytest.mark.skipif(not signed.available("cpu"), reason="needs numba and AVX2")

# Of a gradient's norm, after up to eight products of some 5e-4 each. bf16 would round each number
# by up to 4e-3 of itself.
TOLERANCE = 5e-3
NOISE = 1e-7  # of a bias before a vanilla batch norm, whose gradient is 0 up to rounding
# Of scores of size 1 to 3, whose batch norm is rounded elsewhere. A sign that differs moves most of
# them by 0.01 and more.
SCORE_TOLERANCE = 1e-5
# Of real ConvNets, where a unit near 0 or a window's two greatest may change places: of the float
# ConvNet, which has no product by signs, the gradients of two roundings differ by 4e-3.
REAL_TOLERANCE, REAL_SCORE_TOLERANCE, REAL_NOISE = 2e-2, 1e-4, 1e-5
BINARY_INPUTS = ("bnn-det", "bnn-stoch", "bnn-stoch-w", "bnn-w-stoch")
SIZES: dict[str, dict[str, Any]] = {
    "mnist": {"network.hidden": [96, 130]},
    "cifar10": {"network.width": 8, "network.fc": 40},
}
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def _method(dataset: str, mode: str, precision: str, recipe: str = "theano", **more: Any) -> Any:
    given = load_recipe(recipe, dataset, {**SIZES[dataset], "precision": precision, **more})
    streams = Streams(3)
    offset = -0.4 if given.preprocess == "global" else 0.0
    affine = (1 / 255, offset) if dataset == "mnist" else None
    network = build_network(given.network, MODES[mode], streams, SHAPES[dataset], affine)
    return build_method(given, MODES[mode], network, streams)


def _batch(dataset: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    x = torch.randint(0, 256, (12, *SHAPES[dataset]), generator=generator) * 2.0 - 255
    labels = torch.randint(0, 10, (12,), generator=generator)
    return (x if dataset == "mnist" else x / 255), labels


def _gradients(network: BinaryNetwork, dataset: str) -> tuple[Tensor, list[Tensor]]:
    x, labels = _batch(dataset)
    network.train()
    for layer in network.binary_layers():
        attachment(layer.weight).wanted = False  # no optimizer is there to take factors
    scores = network(x)
    squared_hinge(scores, labels).backward()  # type: ignore[no-untyped-call]
    return scores.detach(), [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("mode", BINARY_INPUTS)
@pytest.mark.parametrize("recipe", ["theano", "torch7"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_forward_keeps_its_signs_and_gradients_their_values(
    dataset: str, recipe: str, mode: str
) -> None:
    exact, fast = (_method(dataset, mode, p, recipe).network for p in ("exact", "fast"))
    assert sum(block.by_signs for block in fast.blocks) >= 3
    assert bool(fast.blocks[0].offset) == ((dataset, recipe) == ("mnist", "torch7"))
    for network in (exact, fast):  # a product may be its mean, whose sign the library rounds to
        for i, block in enumerate(network.blocks):
            generator = torch.Generator().manual_seed(i)
            torch.nn.init.uniform_(block.norm.bias, -0.5, 0.5, generator=generator)
    (scores, gradients), (found, approximate) = (_gradients(n, dataset) for n in (exact, fast))
    assert torch.allclose(scores, found, rtol=0, atol=SCORE_TOLERANCE)
    assert len(gradients) == len(approximate)
    for one, other in zip(gradients, approximate, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) <= TOLERANCE * float(one.norm()) + NOISE


@pytest.mark.parametrize("mode", ["float", "bc-det", "bc-stoch"])
@pytest.mark.parametrize("recipe", ["theano", "torch7"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_real_activations_keep_their_values(
    dataset: str, recipe: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_inputs, "FEWEST", 8)  # the maps of this ConvNet
    products: list[int] = []

    def record(x: Tensor, layer: Any, pool: bool) -> Tensor:
        products.append(x.dim())
        return product(x, layer, pool)

    product = real_inputs.product
    monkeypatch.setattr(real_inputs, "product", record)
    exact, fast = (_method(dataset, mode, p, recipe).network for p in ("exact", "fast"))
    (scores, gradients), (found, approximate) = (_gradients(n, dataset) for n in (exact, fast))
    hidden = {"mnist": [2] * 2, "cifar10": [4] * 5 + [2] * 3}[dataset]
    assert products == ([] if mode == "float" else hidden)
    assert torch.allclose(scores, found, rtol=0, atol=REAL_SCORE_TOLERANCE)
    tolerance = TOLERANCE if dataset == "mnist" else REAL_TOLERANCE
    for one, other in zip(gradients, approximate, strict=True):
        assert float((one - other).norm()) <= tolerance * float(one.norm()) + REAL_NOISE


@pytest.mark.parametrize("pool", [False, True], ids=["", "pooled"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_product_of_real_inputs_is_the_library_s(kind: str, pool: bool) -> None:
    if kind == "linear" and pool:
        pytest.skip("rows are not pooled")
    blocks = _method("cifar10", "bc-det", "fast").network.blocks
    layer = next(b.layer for b in blocks[1:] if isinstance(b.layer, Linear) == (kind == "linear"))
    generator = torch.Generator().manual_seed(4)
    side = (6, 8) if kind == "conv" else ()
    x = torch.randn(5, layer.weight.shape[1], *side, generator=generator).requires_grad_()
    found = real_inputs.product(x, layer, pool)
    gradient = torch.randn(found.shape, generator=generator)
    found.backward(gradient)  # type: ignore[no-untyped-call]
    ours = [found.detach(), x.grad, layer.weight.grad]
    exact, signs = x.detach().double().requires_grad_(), layer.weight.detach().sign().double()
    signs.requires_grad_()
    wanted = F.conv2d(exact, signs, padding=1) if kind == "conv" else F.linear(exact, signs)
    wanted = F.max_pool2d(wanted, 2) if pool else wanted
    wanted.backward(gradient.double())  # type: ignore[no-untyped-call]
    theirs = [wanted.detach(), exact.grad, signs.grad]
    for one, other, tolerance in zip(ours, theirs, (1e-6, 1e-3, 1e-6), strict=True):
        assert one is not None and other is not None
        assert float((one - other).norm()) <= tolerance * float(other.norm())


def test_real_inputs_that_are_few_keep_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*operands: Any) -> Tensor:
        raise AssertionError("no kernel is to be called")

    monkeypatch.setattr(real_inputs, "product", fail)
    _gradients(_method("mnist", "bc-det", "fast", **{"network.hidden": [96, 96]}).network, "mnist")
    _gradients(_method("cifar10", "float", "fast").network, "cifar10")


def test_pooling_of_rows_is_told() -> None:
    layer = _method("mnist", "bc-det", "fast").network.blocks[1].layer
    with pytest.raises(ValueError, match="only a convolution's products are pooled"):
        real_inputs.product(torch.zeros(2, 96), layer, True)


@pytest.mark.parametrize("mode", ["float", "bc-det", "bc-stoch"])
def test_real_activations_have_no_product_of_signs(mode: str) -> None:
    network = _method("cifar10", mode, "fast").network
    assert not any(block.by_signs for block in network.blocks)


@pytest.mark.parametrize("mode", ["bnn-det", "bc-stoch", "float"])
@pytest.mark.parametrize("recipe", ["theano", "torch7"])
def test_evaluation_gives_the_same_scores(recipe: str, mode: str) -> None:
    exact, fast = (_method("mnist", mode, p, recipe).network.eval() for p in ("exact", "fast"))
    with torch.no_grad():
        assert torch.equal(exact(_batch("mnist")[0]), fast(_batch("mnist")[0]))


@pytest.mark.parametrize(
    ("recipe", "mode"), [("theano", "bnn-det"), ("torch7", "bnn-det"), ("theano", "bc-det")]
)
def test_gradients_of_two_backward_passes_add_up(recipe: str, mode: str) -> None:
    once, twice = (
        _method(
            "mnist",
            mode,
            "fast",
            recipe,
            **{"network.input_dropout": 0.0, "network.hidden_dropout": 0.0},
        ).network
        for _ in range(2)
    )
    _, single = _gradients(once, "mnist")
    _gradients(twice, "mnist")
    _, double = _gradients(twice, "mnist")
    for one, two in zip(single, double, strict=True):
        torch.testing.assert_close(two, 2 * one)


@pytest.mark.parametrize(
    ("recipe", "mode"), [("theano", "bnn-det"), ("torch7", "bnn-stoch"), ("torch7", "bnn-stoch-w")]
)
def test_steps_are_the_same_at_each_run_and_for_any_threads(recipe: str, mode: str) -> None:
    runs = []
    before = torch.get_num_threads()
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        method = _method("mnist", mode, "fast", recipe)
        method.start_epoch(0, fresh=True)
        losses = [float(method.step(*_batch("mnist"))[0]) for _ in range(3)]
        runs.append((losses, [p.detach().clone() for p in method.network.parameters()]))
    torch.set_num_threads(before)
    for losses, parameters in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(a, b) for a, b in zip(parameters, runs[0][1], strict=True))


def test_learns_as_the_exact_one_does() -> None:
    losses = {}
    for precision in ("exact", "fast"):
        dry = {"network.input_dropout": 0.0, "network.hidden_dropout": 0.0}
        method = _method("mnist", "bnn-det", precision, **dry)
        method.start_epoch(0, fresh=True)
        losses[precision] = [float(method.step(*_batch("mnist"))[0]) for _ in range(25)]
    assert losses["fast"][-1] < losses["fast"][0] / 2
    assert losses["fast"][-1] == pytest.approx(losses["exact"][-1], rel=0.3)


def test_an_unknown_precision_and_one_that_a_method_lacks_are_named() -> None:
    with pytest.raises(HarnessError, match="'half' is not one of exact, fast"):
        load_recipe("theano", "mnist", {"precision": "half"})
    with pytest.raises(HarnessError, match=r"must be 'exact' for method 'ebp', found fast"):
        load_recipe("ebp", "mnist", {"precision": "fast"})


def test_a_machine_without_the_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed, "available", lambda device: False)
    with pytest.raises(HarnessError, match="needs a GPU, or numba and a CPU with AVX2"):
        _method("mnist", "bnn-det", "fast")


@pytest.mark.parametrize("kind", ["linear", "conv3x3"])
def test_tf32_products_have_the_library_s_gradients(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = {"linear": ((5, 40), (7, 40)), "conv3x3": ((2, 6, 5, 5), (4, 6, 3, 3))}[kind]
    ours, theirs = ([torch.randint(0, 2, shape, generator=generator) * 2.0 - 1 for shape in shapes]
                    for _ in range(2))  # fmt: skip
    for one, other in zip(ours, theirs, strict=True):
        other.copy_(one)
    for operand in ours + theirs:
        operand.requires_grad_()
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    found = getattr(tf32, kind)(*ours)
    plain = F.linear(*theirs) if kind == "linear" else F.conv2d(*theirs, padding=1)
    assert torch.equal(found, plain)
    gradient = torch.randn(plain.shape, generator=generator)
    found.backward(gradient)
    plain.backward(gradient)  # type: ignore[no-untyped-call]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    after = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    assert before == after


def test_convolutions_take_tf32_where_told_and_nowhere_else() -> None:
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    before = cudnn.conv.fp32_precision, matmul.fp32_precision
    tf32.forbid()
    outside = cudnn.conv.fp32_precision, matmul.fp32_precision
    with tf32.tf32():
        inside = cudnn.conv.fp32_precision, matmul.fp32_precision
    after = cudnn.conv.fp32_precision, matmul.fp32_precision
    cudnn.conv.fp32_precision, matmul.fp32_precision = before
    assert inside == ("tf32", "tf32")
    assert outside == after == ("ieee", before[1])
    assert before[1] != "tf32"


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("greatest", [1, 255])
def test_a_convolution_of_integers_is_exact_whatever_the_library_does(
    exact: bool, greatest: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(-greatest, greatest + 1, (5, 7, 6, 8), generator=generator).float()
    weight = torch.randint(0, 2, (9, 7, 3, 3), generator=generator).mul(2).sub(1).float()
    expected = F.conv2d(x.double(), weight.double(), padding=1).float()
    monkeypatch.setattr(tf32, "_exact", {})
    monkeypatch.setattr(tf32, "PATCHED", 2)  # images at once: more than one part
    if not exact:  # as an algorithm that transforms its operands rounds
        library = tf32._library
        monkeypatch.setattr(tf32, "_library", lambda x, w: library(x, w) + 1e-4)
    x.requires_grad_()
    for _ in range(2):
        found = tf32.conv3x3(x, weight.requires_grad_(), fast=False)
        assert torch.equal(found.detach(), expected)
    assert ("is not exact here" in caplog.text) == (not exact)
    assert caplog.text.count("by patches") == (not exact), "found out once"
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("recipe", ["theano", "torch7"])
def test_a_gradient_spent_where_it_is_made_moves_no_bit(recipe: str, threads: int) -> None:
    torch.set_num_threads(threads)
    sizes = {"network.hidden": [96, 160]}
    one, other = (_method("mnist", "bnn-det", "fast", recipe, **sizes) for _ in range(2))
    asked = [attachment(layer.weight) for layer in other.network.binary_layers()]
    assert all(beside.wanted for beside in asked)
    for beside in asked:
        beside.wanted = False
    for method in (one, other):
        method.start_epoch(0, True)
        for _ in range(3):
            method.step(*_batch("mnist"))
    spent = [layer.weight.grad is None for layer in one.network.binary_layers()]
    assert spent == [False, True, True]
    for (name, found), expected in zip(
        one.network.state_dict().items(), other.network.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), name


def test_packed_signs_are_those_of_the_weights_of_now() -> None:
    method = _method("mnist", "bnn-det", "fast", **{"network.hidden": [128, 96]})
    layers = method.network.binary_layers()
    method.start_epoch(0, True)
    method.step(*_batch("mnist"))
    # The hidden layer's were made by the optimizer, whose step came after the forward pass.
    made = [attachment(layer.weight).words_version == layer.weight._version for layer in layers]
    assert made == [False, True, False]
    for _ in range(2):
        for layer in layers:
            assert torch.equal(layer.packed_signs(), pack_rows(layer.weight.detach()).words)
            with torch.no_grad():
                layer.weight.neg_()


def test_an_odd_map_is_not_pooled_and_no_linear_layer_is() -> None:
    blocks = _method("cifar10", "bnn-det", "fast").network.blocks
    with pytest.raises(ValueError, match=r"even height and width, got \[5, 6\]"):
        blocks[1].layer.signed_product(torch.ones(1, 8, 5, 6), 0.0, pool=True)
    with pytest.raises(ValueError, match="only a convolution's products are pooled"):
        blocks[-1].layer.signed_product(torch.ones(1, 40), 0.0, pool=True)
