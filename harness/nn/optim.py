"""The update rules by name: Adam in Lasagne's form and in torch's, and shift-based AdaMax."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from harness.nn.networks import BinaryNetwork
from harness.nn.shift import ShiftAdaMax, ap2_scalar
from harness.spec import OptimizerSpec


class LasagneAdam(Adam):
    """Adam with epsilon outside the bias correction, as in Lasagne (paper, section 2).

    ``theta -= lr sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)``. torch's form divides by
    ``sqrt(v)/sqrt(1-b2^t) + eps'``; the two agree for ``eps' = eps / sqrt(1-b2^t)``, which is set
    before each step so that torch's fused kernel does the work.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        for group in self.param_groups:
            group["lasagne_eps"] = eps
            group["steps"] = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter."""
        for group in self.param_groups:
            group["steps"] += 1
            group["eps"] = group["lasagne_eps"] / (1 - group["betas"][1] ** group["steps"]) ** 0.5
        return super().step(closure)


def _groups(network: BinaryNetwork, spec: OptimizerSpec) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    scaled: set[Tensor] = set()
    for layer in network.binary_layers():
        scale = {"none": 1.0, "glorot": layer.glorot_scale}.get(spec.lr_scale)
        scale = ap2_scalar(layer.glorot_scale) if scale is None else scale
        groups.append({"params": [layer.weight], "lr_scale": scale})
        scaled.add(layer.weight)
    rest = [p for p in network.parameters() if p not in scaled]
    return [*groups, {"params": rest, "lr_scale": 1.0}]


def build_optimizer(network: BinaryNetwork, spec: OptimizerSpec, lr: float) -> Optimizer:
    """Return the optimizer of ``spec`` with one group for each binary layer's scaled step."""
    return optimizer_of(_groups(network, spec), spec, lr)


def optimizer_of(groups: list[dict[str, Any]], spec: OptimizerSpec, lr: float) -> Optimizer:
    """Return the optimizer of ``spec`` over groups, each with its ``lr_scale``."""
    betas = (spec.beta1, spec.beta2)
    optimizer: Optimizer
    if spec.kind == "shift-adamax":
        optimizer = ShiftAdaMax(groups, lr, betas, spec.eps, spec.stored_ap2)
    elif spec.kind == "adam-lasagne":
        optimizer = LasagneAdam(groups, lr, betas, spec.eps)
    else:
        optimizer = Adam(groups, lr=lr, betas=betas, eps=spec.eps, fused=True)
    set_learning_rate(optimizer, lr)
    return optimizer


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the epoch's rate. Adam's step is linear in it, so the Glorot scale multiplies it;
    shift-AdaMax rounds the rate to a power of two first and scales the step itself."""
    for group in optimizer.param_groups:
        own_scale = isinstance(optimizer, ShiftAdaMax)
        group["lr"] = lr if own_scale else lr * group["lr_scale"]
