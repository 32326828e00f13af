"""The update rules by name: Adam in Lasagne's form and in torch's, and shift-based AdaMax."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from harness.nn import fused, gpu
from harness.nn.attached import attachment
from harness.nn.eager import EagerOptimizer
from harness.nn.networks import BinaryNetwork
from harness.nn.planned import PlannedOptimizer
from harness.nn.shift import ShiftAdaMax, ap2_scalar
from harness.spec import OptimizerSpec

LARGE = 1 << 16  # elements: from here on a launch of its own costs less than gathering


class LasagneAdam(EagerOptimizer, Adam):
    """Adam with epsilon outside the bias correction, as in Lasagne (paper, section 2).

    ``theta -= lr sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)``. torch's form divides by
    ``sqrt(v)/sqrt(1-b2^t) + eps'``; the two agree for ``eps' = eps / sqrt(1-b2^t)``, which is set
    before each step so that torch's fused kernel does the work. On the CPU one pass does it with
    the clip, to the same bits.
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
        if closure is None and self._one_pass():
            return None
        loss = super().step(closure)
        for group in self.param_groups[: self.clipped_groups]:
            for parameter in group["params"]:
                parameter.clamp_(-1, 1)
        return loss

    def _one_pass(self) -> bool:
        """Take the step by :func:`fused.adam_` if it takes every parameter; return whether."""
        if not all(fused.takes(*group["params"]) for group in self.param_groups):
            return False
        for parameter, gradient, group, bound in self.gradients():
            state = self.state[parameter]
            if not state:  # as torch's Adam keeps it, so that either goes on from the other
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            fused.adam_(
                parameter, gradient, state["exp_avg"], state["exp_avg_sq"], betas=group["betas"],
                eps=group["eps"], lr=group["lr"], step=int(state["step"]), bound=bound,
            )  # fmt: skip
        return True


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


def _large_apart(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with large real weights in groups of their own; the small stay together."""
    *binary, rest = groups
    large = [p for p in rest["params"] if p.numel() >= LARGE]
    small = [p for p in rest["params"] if p.numel() < LARGE]
    apart = [{**rest, "params": params} for params in (*([p] for p in large), small) if params]
    return [*binary, *apart]


def build_optimizer(network: BinaryNetwork, spec: OptimizerSpec, lr: float) -> Optimizer:
    """Return the optimizer of ``spec`` with one group for each binary layer's scaled step.

    Where ``spec`` clips, all but torch's Adam do it within the step (:func:`clips`).
    """
    planned = gpu.takes(*network.parameters())
    optimizer = optimizer_of(_groups(network, spec), spec, lr, planned)
    for layer in network.binary_layers():
        eager = isinstance(optimizer, LasagneAdam | ShiftAdaMax)
        attachment(layer.weight).wanted = eager and fused.takes(layer.weight)
    if spec.clip and isinstance(optimizer, EagerOptimizer):
        optimizer.clipped_groups = len(network.binary_layers())
    return optimizer


def clips(optimizer: Optimizer) -> bool:
    """Return True where the optimizer's step clips the latent weights itself."""
    return bool(getattr(optimizer, "clipped_groups", 0))


def optimizer_of(
    groups: list[dict[str, Any]], spec: OptimizerSpec, lr: float, planned: bool = False
) -> Optimizer:
    """Return the optimizer of ``spec`` over groups, each with its ``lr_scale``.

    ``planned`` asks for the one of a GPU, which keeps large real weights in groups of their own.
    """
    betas = (spec.beta1, spec.beta2)
    optimizer: Optimizer
    if planned:
        apart = _large_apart(groups)
        optimizer = PlannedOptimizer(apart, spec.kind, lr, betas, spec.eps, spec.stored_ap2)
    elif spec.kind == "shift-adamax":
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
        scales_itself = getattr(optimizer, "scales_itself", False)
        group["lr"] = lr if scales_itself else lr * group["lr_scale"]
