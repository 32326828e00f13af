"""The optimizers of a GPU: one pass over memory a step, and nothing of a step on the host.

A step may be captured in a CUDA graph and replayed: what changes from step to step (bias
corrections, the learning rate) lies in a table on the device, a row a step, made on the host in
float64 for a whole epoch; a counter on the device says which row comes next.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.nn.attached import Maps, attachment
from harness.nn.eager import EagerOptimizer

if TYPE_CHECKING:
    from kernels.triton.rules import Rule

# The scalars of a step: rate, root of the second correction and epsilon; or the rate alone.
SCALARS = {"adam-lasagne": 3, "adam-torch": 3, "shift-adamax": 1}


class PlannedOptimizer(EagerOptimizer):
    """Adam in either form or shift-based AdaMax, with the clip of latent weights.

    The rules of ``LasagneAdam``, torch's ``Adam`` and ``ShiftAdaMax``. A group has its ``lr`` and
    its ``lr_scale``; a group of several parameters is laid out as one flat tensor, of which they
    become views.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        rule: str,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        stored: bool = False,
    ) -> None:
        if rule not in SCALARS:
            raise ValueError(f"rule must be one of {', '.join(SCALARS)}, found {rule!r}")
        super().__init__(groups, {"lr": lr, "lr_scale": 1.0})
        self.rule, self.betas, self.eps, self.stored = rule, betas, eps, stored
        self.scales_itself = rule == "shift-adamax"
        self._flats = [_flat(group["params"]) for group in self.param_groups]
        self._moments = [(torch.zeros_like(f), torch.zeros_like(f)) for f in self._flats]
        device = self._flats[0].device
        self._base = 0
        # A row a group: updates of two steps may be under way at once.
        self._rows = torch.zeros(len(self._flats), dtype=torch.long, device=device)
        self._plan = torch.zeros(len(self._flats), 0, SCALARS[rule], device=device)
        self._sides = self.side_streams() if device.type == "cuda" else {}
        self._early: dict[int, Any] = {}  # gradients that an update under way reads, by group
        self._taken: set[int] = set()  # groups whose update of this step is taken or under way
        for index, group in enumerate(self.param_groups):
            if len(group["params"]) == 1:
                beside = attachment(group["params"][0])
                beside.update = partial(self._update_early, index)
                beside.settle = partial(self._settle, index)

    def side_streams(self) -> dict[int, Any]:
        """Return a stream for each weight that is updated beside the rest of the step, by group.

        Updates read and write memory while the step multiplies. The next step needs the first
        layers' weights first, and their gradients come last: they go before the others.
        """
        cuda: Any = torch.cuda
        singles = [i for i, group in enumerate(self.param_groups) if len(group["params"]) == 1]
        return {index: cuda.Stream(priority=min(0, at - 2)) for at, index in enumerate(singles)}

    @property
    def steps_done(self) -> int:
        """Steps taken so far; waits for the device."""
        return self._base + int(self._rows[-1].item())

    def plan(self, steps: int) -> None:
        """Lay out the scalars of the next ``steps`` steps at the groups' present rates.

        The table stays where it is in memory as long as ``steps`` does not grow.
        """
        self._base = self.steps_done
        self._rows.zero_()
        times = torch.arange(self._base + 1, self._base + 1 + steps, dtype=torch.float64)
        table = torch.stack([self._scalars(group, times) for group in self.param_groups])
        if steps > self._plan.shape[1]:
            self._plan = torch.empty(table.shape, device=self._rows.device)
        self._plan[:, :steps].copy_(table.to(torch.float32))

    def _scalars(self, group: dict[str, Any], t: Tensor) -> Tensor:
        """Return the scalars of steps t [T] in float64, [T, S]."""
        rate: Tensor = group["lr"] / (1 - self.betas[0] ** t)
        if self.scales_itself:
            powers = torch.exp2(torch.log2(rate).round())
            return powers.mul_(group["lr_scale"]).unsqueeze(1)
        root = (1 - self.betas[1] ** t).sqrt()
        eps = self.eps / root if self.rule == "adam-lasagne" else self.eps * torch.ones_like(t)
        return torch.stack([rate, root, eps], dim=1)

    @torch.no_grad()
    def step(self, closure: Any = None, join: bool = True) -> None:  # type: ignore[override]
        """Update every parameter by the plan's next row; nothing waits, nothing is read back.

        Without ``join`` updates may still be under way: a layer waits for its own before it reads
        its weights.
        """
        for index in self._taken:
            if any(parameter.grad is not None for parameter in self.param_groups[index]["params"]):
                raise ValueError("a weight has a gradient beside the one that was handed over")
        late = [index for index in range(len(self.param_groups)) if index not in self._taken]
        for index in late:
            self._update(index, self.param_groups[index]["params"])
        if late:
            torch._foreach_add_([self._rows[index] for index in late], 1)
        self._taken.clear()
        for index in list(self._early) if join else ():
            self._settle(index)

    @torch.no_grad()
    def _update_early(self, index: int) -> None:
        """Update a weight whose gradient is there, beside the rest of the backward pass."""
        parameters, side = self.param_groups[index]["params"], self._sides.get(index)
        self._taken.add(index)
        if side is None:
            self._update(index, parameters)
            self._rows[index] += 1
            return
        self._early[index] = attachment(parameters[0]).handed
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._update(index, parameters)
            self._rows[index] += 1

    def _settle(self, index: int) -> None:
        """Let the current stream wait for a group's update, if one is under way."""
        if index in self._early:
            torch.cuda.current_stream().wait_stream(self._sides[index])
            del self._early[index]  # only now: its memory goes to what comes next

    def _update(self, index: int, parameters: Sequence[Tensor]) -> None:
        from kernels.triton import binary_maps, maps, pixel_maps, update, update_product

        row = self._rows[index]
        flat, state = self._flats[index], (*self._moments[index], self._plan[index], row)
        beside = attachment(parameters[0])
        handed, beside.handed = beside.handed, None
        signs = None if beside.signs is None else _dense(beside.signs, parameters[0])
        rule = self._rule(1.0 if index < self.clipped_groups else math.inf)
        if isinstance(handed, Maps):
            if not parameters[0].is_contiguous(memory_format=torch.channels_last):
                raise ValueError(f"filters must lie channels last, got {parameters[0].stride()}")
            by_filters = pixel_maps.by_filters if handed.pixels else maps.by_filters
            update.update_(rule, flat, by_filters(handed.gradient, handed.x), *state, signs)
        elif isinstance(handed, tuple):
            update_product.update_by_product_(rule, flat, *handed, *state, signs)
        else:
            gradient = (
                _gradient(parameters, flat) if handed is None else _dense(handed, parameters[0])
            )
            update.update_(rule, flat, gradient, *state, signs)
        torch.autograd.graph.increment_version(parameters)
        if signs is not None:
            beside.version = parameters[0]._version
            if beside.filters is not None:
                binary_maps.pack_filters_(signs, beside.filters)
                beside.filters_version = beside.version

    def _rule(self, bound: float) -> "Rule":
        from kernels.triton.rules import Rule

        if self.scales_itself:
            return Rule.adamax(self.betas, self.eps, self.stored, bound)
        return Rule.adam(self.betas, bound)

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the count of steps and the moments."""
        return {"steps": self.steps_done, "moments": [list(pair) for pair in self._moments]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Go on from :meth:`state_dict`, in the memory that a graph may have captured."""
        self._base = int(state["steps"])
        self._rows.zero_()
        for pair, saved in zip(self._moments, state["moments"], strict=True):
            for moment, value in zip(pair, saved, strict=True):
                moment.copy_(value)


@torch.no_grad()
def _flat(parameters: Sequence[Tensor]) -> Tensor:
    """Return the only parameter, dense, or one flat tensor that all become views of."""
    if len(parameters) == 1:
        return _dense(parameters[0].detach(), parameters[0])
    flat = torch.cat([parameter.flatten() for parameter in parameters])
    for parameter, part in zip(parameters, _parts(parameters, flat), strict=True):
        parameter.data = part
    return flat


def _dense(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the tensor in the order that ``like`` has in memory: as it is, or channels last."""
    if like.is_contiguous():
        return tensor.contiguous()
    return tensor.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def _parts(parameters: Sequence[Tensor], flat: Tensor) -> list[Tensor]:
    pieces = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


def _gradient(parameters: Sequence[Tensor], flat: Tensor) -> Tensor:
    """Return the parameters' gradients in the layout of ``flat``."""
    found = [parameter.grad for parameter in parameters]
    missing = [list(p.shape) for p in parameters if p.grad is None]
    if missing:
        raise ValueError(f"parameters of shape {missing} have no gradient; run backward first")
    gradients = [gradient for gradient in found if gradient is not None]
    if len(gradients) == 1:
        return _dense(gradients[0], parameters[0])
    gathered = torch.empty_like(flat)
    torch._foreach_copy_(_parts(parameters, gathered), gradients)
    return gathered
