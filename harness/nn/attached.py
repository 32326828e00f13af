"""What a layer and the optimizer of a GPU tell each other of a weight, beside its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Attachment:
    """Of one weight [N, K].

    Attributes:
        factors: the gradient ``rows.T @ columns``, which never is in memory: rows bfloat16
            [P, B, N], P pieces of a float32 matrix, and columns bfloat16 [B, K].
        signs: bfloat16 [N, K], which the optimizer writes as it updates the weight.
        version: of the weight whose signs they are.
        update: the optimizer's, called once the factors are there; None: it does so in its step.
    """

    factors: tuple[Tensor, Tensor] | None = None
    signs: Tensor | None = None
    version: int = -1
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
