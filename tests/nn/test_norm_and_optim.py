import math

import numpy as np
import pytest
import torch
from numpy_reference import Adam
from torch import nn

from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.norm import VanillaBatchNorm, build_norm
from harness.nn.optim import LasagneAdam, build_optimizer, set_learning_rate
from harness.nn.shift import ShiftBatchNorm
from harness.nn.streams import STREAMS, Streams
from harness.spec import MODES, NormSpec, load_recipe

# Two float32 forms of one formula: some units in the last place of values of size 1.
FLOAT32_TOLERANCE = 1e-5


def test_torch_form_equals_the_library_module_in_training_and_test() -> None:
    x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    ours, library = VanillaBatchNorm(3, "torch", 1e-5, 0.1), nn.BatchNorm2d(3, 1e-5, 0.1)
    for _ in range(3):
        assert torch.allclose(ours(x), library(x), atol=FLOAT32_TOLERANCE)
    assert library.running_var is not None
    assert torch.allclose(ours.get_buffer("running_var"), library.running_var, rtol=1e-5)
    assert torch.allclose(ours.eval()(x), library.eval()(x), atol=FLOAT32_TOLERANCE)


def test_lasagne_form_averages_the_inverse_deviation() -> None:
    x = torch.tensor([[1.0], [3.0]])  # mean 2, biased variance 1
    norm = VanillaBatchNorm(1, "lasagne", 1e-4, 0.1)
    norm(x)
    norm(3 * x)  # mean 6, biased variance 9
    first, second = 1 / math.sqrt(1 + 1e-4), 1 / math.sqrt(9 + 1e-4)
    inverse = 0.9 * (0.9 + 0.1 * first) + 0.1 * second
    mean = 0.9 * 0.2 + 0.1 * 6
    assert norm.get_buffer("running_inv_std").item() == pytest.approx(inverse, rel=1e-6)
    assert norm.running_mean.item() == pytest.approx(mean, rel=1e-6)
    tested = norm.eval()(torch.tensor([[4.0]])).item()
    assert tested == pytest.approx((4 - mean) * inverse, rel=1e-6)


def test_the_two_forms_train_alike_and_test_apart() -> None:
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(1)) * 2
    lasagne, library = (VanillaBatchNorm(4, f, 1e-4, 0.1) for f in ("lasagne", "torch"))
    assert torch.equal(lasagne(x), library(x))
    assert not torch.allclose(lasagne.eval()(x), library.eval()(x), atol=1e-3)


def test_norms_are_built_by_name() -> None:
    assert isinstance(build_norm(NormSpec("shift", 1e-5, 0.125), 3, 5), ShiftBatchNorm)
    vanilla = build_norm(NormSpec("lasagne", 1e-4, 0.1), 3, 5)
    assert isinstance(vanilla, VanillaBatchNorm)
    assert (vanilla.form, vanilla.eps, vanilla.momentum) == ("lasagne", 1e-4, 0.1)
    with pytest.raises(ValueError, match="'lasagne' or 'torch', found 'keras'"):
        VanillaBatchNorm(3, "keras", 1e-5, 0.1)


def test_lasagne_adam_puts_epsilon_outside_the_bias_correction() -> None:
    # Gradients of epsilon's size tell the two forms apart, as the mean over outputs makes them.
    gradients = np.array([[1e-8, 1e-3, -2e-9], [3e-8, -1e-3, 1e-9], [0, 1e-2, 1e-9]])
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    theirs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    ours = LasagneAdam([parameter], 0.01, (0.9, 0.999), 1e-8)
    library = torch.optim.Adam([theirs], 0.01, (0.9, 0.999), 1e-8)
    rule, expected = Adam(0.9, 0.999, 1e-8), np.zeros(3)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        theirs.grad = torch.from_numpy(gradient)
        ours.step()
        library.step()
        expected -= rule.step(gradient, 0.01, 1.0)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)
    assert abs(theirs[0] - parameter[0]) > 0.1 * abs(parameter[0])


def test_lasagne_adam_goes_on_from_its_state() -> None:
    def run(split: int | None) -> torch.Tensor:
        parameter = torch.zeros(2, requires_grad=True)
        optimizer = LasagneAdam([parameter], 0.01, (0.9, 0.999), 1e-8)
        for step in range(6):
            if step == split:
                state = optimizer.state_dict()
                optimizer = LasagneAdam([parameter], 0.5, (0.9, 0.999), 1e-8)
                optimizer.load_state_dict(state)
            parameter.grad = torch.tensor([1e-8, 0.1 * step])
            optimizer.step()
        return parameter.detach()

    assert torch.equal(run(3), run(None))


def _network(recipe_name: str, mode: str) -> tuple[BinaryNetwork, object]:
    recipe = load_recipe(recipe_name, "mnist", {"network.hidden": [6, 5]})
    network = build_network(recipe.network, MODES[mode], Streams(0), (1, 2, 2), None)
    optimizer = build_optimizer(network, recipe.optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    return network, optimizer


@pytest.mark.parametrize("mode", ["bnn-det", "bc-stoch", "float"])
def test_binary_weights_alone_are_scaled(mode: str) -> None:
    network, optimizer = _network("theano", mode)
    rates = {
        id(p): group["lr"]
        for group in optimizer.param_groups  # type: ignore[attr-defined]
        for p in group["params"]
    }
    assert len(rates) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        fans = sum(parameter.shape) if name.endswith("layer.weight") and mode != "float" else 1.5
        assert rates[id(parameter)] == pytest.approx(0.25 / math.sqrt(1.5 / fans)), name


def test_optimizers_are_built_by_name() -> None:
    for kind, expected in (("adam-lasagne", LasagneAdam), ("adam-torch", torch.optim.Adam)):
        recipe = load_recipe("theano", "mnist", {"network.hidden": [6], "optimizer.kind": kind})
        network = build_network(recipe.network, MODES["bnn-det"], Streams(0), (1, 2, 2), None)
        assert type(build_optimizer(network, recipe.optimizer, 0.1)) is expected


def test_squared_hinge_by_hand() -> None:
    scores = torch.tensor([[2.0, -3.0, 0.5], [0.0, 0.25, -1.0]])
    # Targets + - -, - + -: slacks 0 0 1.5 and 1 0.75 0.
    loss = squared_hinge(scores, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((1.5**2 + 1 + 0.75**2) / 6)
    assert squared_hinge(torch.zeros(4, 10), torch.arange(4)).item() == 1


def test_streams_are_independent_and_go_on_from_their_state() -> None:
    streams, same = Streams(7), Streams(7)
    first = {name: torch.rand(3, generator=streams[name]) for name in STREAMS}
    assert len({tuple(v.tolist()) for v in first.values()}) == len(STREAMS)
    # Drawing in another order, and from one stream only, changes nothing of the others.
    torch.rand(100, generator=same["dropout"])
    assert torch.equal(first["init"], torch.rand(3, generator=same["init"]))
    state = streams.state_dict()
    following = torch.rand(5, generator=streams["shuffle"])
    other = Streams(8)
    other.load_state_dict(state)
    assert torch.equal(following, torch.rand(5, generator=other["shuffle"]))
    fresh = torch.rand(3, generator=Streams(8)["init"])
    assert not torch.equal(first["init"], fresh)
