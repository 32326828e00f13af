"""torch's optimizer base without torch.compile, which nothing here uses."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def _unwrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return found


class EagerOptimizer(Optimizer):
    """An ``Optimizer`` whose bookkeeping does not import the compiler.

    torch wraps these methods so that torch.compile leaves them alone; the first call of a wrapper
    imports ``torch._dynamo``: 2.5 s of processor time, more than a short run's epochs take.
    """

    state_dict = _unwrapped(Optimizer.state_dict)
    load_state_dict = _unwrapped(Optimizer.load_state_dict)
    zero_grad = _unwrapped(Optimizer.zero_grad)
    add_param_group = _unwrapped(Optimizer.add_param_group)
