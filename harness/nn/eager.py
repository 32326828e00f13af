"""torch's optimizer base without torch.compile, which nothing here uses, and with clipping."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from harness.nn.attached import Factors, Maps, attachment


def _unwrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return found


class EagerOptimizer(Optimizer):
    """An ``Optimizer`` whose bookkeeping does not import the compiler.

    torch wraps these methods so that torch.compile leaves them alone; the first call of a wrapper
    imports ``torch._dynamo``: 2.5 s of processor time, more than a short run's epochs take.

    The first ``clipped_groups`` groups hold latent weights, which a step leaves in [-1, 1].
    """

    clipped_groups = 0

    state_dict = _unwrapped(Optimizer.state_dict)
    load_state_dict = _unwrapped(Optimizer.load_state_dict)
    zero_grad = _unwrapped(Optimizer.zero_grad)
    add_param_group = _unwrapped(Optimizer.add_param_group)

    def gradients(self) -> Iterator[tuple[Tensor, Factors | Tensor, dict[str, Any], float]]:
        """Yield each parameter that has a gradient: it, the gradient, its group and its bound.

        The gradient comes as its factors where the layer has handed these over.
        """
        for index, group in enumerate(self.param_groups):
            bound = 1.0 if index < self.clipped_groups else math.inf
            for parameter in group["params"]:
                beside = attachment(parameter)
                handed, beside.handed = beside.handed, None
                assert not isinstance(handed, Maps), "maps are for the kernels of a GPU"
                gradient = parameter.grad if handed is None else handed
                if gradient is not None:
                    yield parameter, gradient, group, bound
