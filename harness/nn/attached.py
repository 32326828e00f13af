"""What a layer and the optimizer tell each other of a weight, beside its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Factors = tuple[Tensor, Tensor]


@dataclass
class Attachment:
    """Of one weight [N, K].

    Attributes:
        factors: of a gradient that never is in memory. On a GPU ``rows.T @ columns``: rows bfloat16
            [P, B, N], P pieces of a float32 matrix, and columns bfloat16 [B, K]. On a CPU ``rows @
            signs``: rows float32 [N, B] and packed signs, int64 [planes, B, ceil(K/64)].
        signs: bfloat16 [N, K], which the optimizer writes as it updates the weight.
        version: of the weight whose signs they are.
        wanted: whether the optimizer takes factors.
        update: the optimizer's, called once the factors are there; None: it does so in its step.
    """

    factors: Factors | None = None
    signs: Tensor | None = None
    version: int = -1
    wanted: bool = False
    update: Callable[[], None] | None = None

    def hand_over(self, rows: Tensor, columns: Tensor) -> None:
        """Give the gradient's factors to the optimizer; from here on it may change the weight."""
        self.factors = (rows, columns)
        if self.update is not None:
            self.update()


def attachment(weight: Tensor) -> Attachment:
    """Return the weight's attachment, an empty one at first."""
    found: Attachment = weight.__dict__.setdefault("attachment", Attachment())
    return found
