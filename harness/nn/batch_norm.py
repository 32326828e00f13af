"""What vanilla and shift-based batch norm share: parameters, running averages, their taking."""

import torch
from torch import Tensor, nn

Averages = list[tuple[Tensor, Tensor]]


class BatchNorm(nn.Module):
    """Scale ``weight``, shift ``bias``, and running averages of the mean and of ``spread``.

    ``momentum`` is the weight of the newest batch.
    """

    running_mean: Tensor
    shift_based = False  # whether factors are rounded to powers of two
    # By momentum, where the running averages of a whole network are taken together.
    waiting: dict[float, Averages] | None = None

    def __init__(self, features: int, eps: float, momentum: float, spread: str) -> None:
        super().__init__()
        self.eps, self.momentum, self._spread = eps, momentum, spread
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer(spread, torch.ones(features))

    @property
    def fusable(self) -> bool:
        """True where the batch's mean and inverse deviation are all that the averages take."""
        return True

    def spread_of(self, inv_std: Tensor, n: int) -> Tensor:
        """Return what is averaged beside the mean, of ``n`` values a channel."""
        raise NotImplementedError

    def test_factor(self) -> Tensor:
        """Return what multiplies ``x - mean`` at test time, [C]."""
        raise NotImplementedError

    def evaluate(self, x: Tensor, channel_dim: int) -> Tensor:
        """Return the test-time output; channels lie along ``channel_dim`` of ``x``.

        Three rounded operations, each monotone in ``x``: export relies on that.
        """
        shape = [-1 if i == channel_dim % x.dim() else 1 for i in range(x.dim())]
        centred = x - self.running_mean.view(shape)
        return centred * self.test_factor().view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def average(self, mean: Tensor, inv_std: Tensor, n: int) -> None:
        """Average in the mean and ``1/sqrt(var + eps)`` of a batch of ``n`` values a channel."""
        self.average_newest(mean, self.spread_of(inv_std, n))

    @torch.no_grad()
    def average_newest(self, mean: Tensor, spread: Tensor) -> None:
        """Average in a batch's mean and spread, or let them wait for the network's others."""
        pairs = [(self.running_mean, mean), (self.get_buffer(self._spread), spread)]
        if self.waiting is None:
            average_in(pairs, self.momentum)
        else:
            self.waiting.setdefault(self.momentum, []).extend(pairs)


@torch.no_grad()
def average_in(pairs: Averages, momentum: float) -> None:
    """Average a newest value in to each running one: one launch on a GPU for all."""
    running, newest = zip(*pairs, strict=True)
    torch._foreach_lerp_(list(running), list(newest), momentum)
