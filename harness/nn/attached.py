"""What a layer and the optimizer tell each other of a weight, beside its gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from kernels.triton.binary_maps import Filters

Factors = tuple[Tensor, Tensor]


class Maps(NamedTuple):
    """What a convolution's gradient by its filters is made of.

    By ``by_filters`` of ``kernels.triton.maps``, or ``.pixel_maps``.

    Attributes:
        gradient: by the dots, float16 [B, H, W, N], scaled.
        x: the inputs, float16 [B, H, W, C], or ``pixels``, float32 [B, C, H, W].
    """

    gradient: Tensor
    x: Tensor
    pixels: bool


Handed = Maps | Factors | Tensor


@dataclass
class Attachment:
    """Of one weight, [N, K] or filters [N, C, 3, 3].

    Attributes:
        handed: the gradient that the layer hands over itself, or the factors of one that never is
            in memory. On a GPU ``rows.T @ columns``: rows bfloat16 [P, B, N], P pieces of a float32
            matrix, and columns bfloat16 [B, K]. On a CPU ``rows @ signs``: rows float32 [N, B] and
            packed signs, int64 [planes, B, ceil(K/64)].
        signs: bfloat16, float16 or float32, which the optimizer writes as it updates the weight.
        version: of the weight whose signs they are.
        filters: those signs packed for products of single bits, on a GPU, which the optimizer
            writes too, and the ``filters_version`` of them.
        words: its signs packed, int64 [N, ceil(K/64)], on a CPU, and the ``words_version`` of them.
        wanted: whether the optimizer takes factors.
        update: the optimizer's, called once the gradient is there; None: it does so in its step.
        settle: the optimizer's, called before the weight is read: an update may be under way.
    """

    handed: Handed | None = None
    signs: Tensor | None = None
    version: int = -1
    filters: "Filters | None" = None
    filters_version: int = -1
    words: Tensor | None = None
    words_version: int = -1
    wanted: bool = False
    update: Callable[[], None] | None = None
    settle: Callable[[], None] | None = None

    def hand_over(self, gradient: Handed) -> None:
        """Give the gradient to the optimizer; from here on it may change weight and signs."""
        self.handed = gradient
        if self.update is not None:
            self.update()

    def wait(self) -> None:
        """Let what comes read the weight and its signs: after an update that is under way."""
        if self.settle is not None:
            self.settle()


def attachment(weight: Tensor) -> Attachment:
    """Return the weight's attachment, an empty one at first."""
    found: Attachment = weight.__dict__.setdefault("attachment", Attachment())
    return found
