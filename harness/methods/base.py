"""What the trainer asks of a learning rule."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.nn.networks import BinaryNetwork
from harness.nn.streams import Streams
from harness.train.inputs import Resident


class Method(Protocol):
    """A learning rule over one network.

    ``network`` is the network at test time: its weights are what a run selects, saves and exports.
    ``other_weights`` names a second way to test the same training (``sign`` or ``mean`` weights),
    "" where there is none; it has a model selection of its own.
    """

    network: BinaryNetwork
    streams: Streams
    other_weights: str

    def start_epoch(self, epoch: int, fresh: bool) -> float | None:
        """Prepare ``epoch`` (from 0) and return its learning rate, None where there is none.

        ``fresh`` is False where a run resumes within the epoch: nothing may begin anew then.
        """
        ...

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from one batch; return its mean square hinge loss and its count of mistakes."""
        ...

    def end_epoch(self) -> nn.Module:
        """Bring ``network`` up to date and return the network that the epoch's errors are of."""
        ...

    def selectable(self, epoch: int) -> bool:
        """Tell whether the network after ``epoch`` may be the run's result."""
        ...

    def other_error_pct(self, images: Resident) -> float:
        """Return the error in percent with the other weights."""
        ...

    def signs(self) -> Tensor:
        """Return whether each binary weight is +1, flat; empty while none is binary."""
        ...

    def trained(self) -> Mapping[str, Tensor]:
        """Return all that is trained, by name: none of it may leave the finite range."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the streams that the next step depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        ...


def flat_signs(weights: list[Tensor]) -> Tensor:
    """Return whether each weight is at least 0, as one flat tensor."""
    found = [weight.detach().flatten() >= 0 for weight in weights]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.bool)
