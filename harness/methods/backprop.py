"""Back-propagation through the binarization of the mode (paper, Algorithm 1)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.methods.base import flat_signs
from harness.nn import signed
from harness.nn.loss import backward_from
from harness.nn.networks import BinaryNetwork
from harness.nn.optim import build_optimizer, clips, set_learning_rate
from harness.nn.planned import PlannedOptimizer
from harness.nn.streams import Streams
from harness.spec import Recipe
from harness.train.evaluation import error_pct, predict_scores
from harness.train.inputs import Resident


class Backprop:
    """One step: forward, square hinge loss, backward, update, clip.

    Where training draws binary weights but the test takes the real ones (BinaryConnect's
    stochastic form, as its authors tested it), the error with ``sign(w)`` is given beside.
    """

    def __init__(self, recipe: Recipe, network: BinaryNetwork, streams: Streams) -> None:
        self.recipe, self.network, self.streams = recipe, network, streams
        if recipe.precision == "fast":
            self._check_fast()
            network.multiply_by_signs()
        layers = network.binary_layers()
        self._tested_real = [layer for layer in layers if layer.test_weights == "real"]
        self.other_weights = "sign" if self._tested_real else ""
        self.optimizer = build_optimizer(network, recipe.optimizer, recipe.schedule.rate(0, 1))
        network.average_later()

    def _check_fast(self) -> None:
        device = next(self.network.parameters()).device
        if not signed.available(device):
            raise HarnessError(
                "precision 'fast' needs a GPU, or numba and a CPU with AVX2; "
                f"found device {str(device)!r}; 'exact' runs anywhere"
            )

    def start_epoch(self, epoch: int, fresh: bool) -> float:
        """Set and return the epoch's learning rate."""
        rate = self.recipe.schedule.rate(epoch, self.recipe.epochs)
        set_learning_rate(self.optimizer, rate)
        self.network.train()
        return rate

    @property
    def graphable(self) -> bool:
        """True where :meth:`learn` may be captured once and replayed, after :meth:`plan`."""
        return isinstance(self.optimizer, PlannedOptimizer)

    def plan(self, steps: int) -> None:
        """Make ready for the next ``steps`` calls or replays of :meth:`learn`."""
        if isinstance(self.optimizer, PlannedOptimizer):
            self.optimizer.plan(steps)
            self.network.refresh_signs()

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Update every parameter once."""
        self.plan(1)
        return self.learn(x, labels)

    def learn(self, x: Tensor, labels: Tensor, join: bool = True) -> tuple[Tensor, Tensor]:
        """Do :meth:`step`'s work: on a GPU, device work alone, which waits for nothing.

        Without ``join`` the updates of a :class:`PlannedOptimizer` may still be under way.
        """
        scores = self.network(x)
        self.optimizer.zero_grad(set_to_none=True)
        loss, mistakes = backward_from(scores, labels)
        self.network.average()  # here, beside updates that a GPU has begun
        if isinstance(self.optimizer, PlannedOptimizer):
            self.optimizer.step(join=join)
        else:
            self.optimizer.step()
        if self.recipe.optimizer.clip and not clips(self.optimizer):
            self.network.clip_latent()
        return loss, mistakes

    def replayed(self) -> None:
        """Note that replays have changed what the host thinks unchanged."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        torch.autograd.graph.increment_version(tensors)

    def end_epoch(self) -> nn.Module:
        """Return the network, which every step keeps up to date."""
        return self.network

    def selectable(self, epoch: int) -> bool:
        """Return True."""
        return True

    def other_error_pct(self, images: Resident) -> float:
        """Return the error in percent with the signs of the latent weights."""
        for layer in self._tested_real:
            layer.test_weights = "det"
        try:
            return error_pct(predict_scores(self.network, images), images.labels)
        finally:
            for layer in self._tested_real:
                layer.test_weights = "real"

    def signs(self) -> Tensor:
        """Return the signs of the latent weights of the binary layers."""
        return flat_signs([layer.weight for layer in self.network.binary_layers()])

    def trained(self) -> Mapping[str, Tensor]:
        """Return the network's parameters and running averages."""
        return dict(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return network and optimizer."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
