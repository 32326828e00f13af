"""The steps of an epoch: one by one from the host, or on a GPU as replays of a captured graph."""

import copy
import gc
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.methods import Method
from harness.methods.backprop import Backprop
from harness.train.inputs import Resident

GRAPH_STEPS = 10  # in a graph: a step's updates run on beside the next step's first layers
PRIORITY = -3  # of the stream of steps, before those of updates beside them
WARM_STEPS = 3  # before a capture: libraries make their handles and workspaces, kernels compile


class Steps(Protocol):
    """The steps of one epoch after another."""

    def begin(self, order: Tensor, done: int, loss_sum: float, wrong: int) -> None:
        """Start or go on with an epoch over images ``order``, ``done`` steps of it behind."""
        ...

    def step(self) -> int:
        """Learn from the next batch, or batches; return how many."""
        ...

    def totals(self) -> tuple[float, int]:
        """Return the epoch's sum of losses and count of mistakes; waits for the device."""
        ...


class EagerSteps:
    """Each step's operations one after the other."""

    def __init__(self, method: Method, train: Resident, batch: int) -> None:
        self.method, self.train, self.batch = method, train, batch

    def begin(self, order: Tensor, done: int, loss_sum: float, wrong: int) -> None:
        """Start or go on with an epoch."""
        device = self.train.labels.device
        self._order, self._done = order.to(device), done
        self._loss_sum = torch.tensor(loss_sum, dtype=torch.float64, device=device)
        self._wrong = torch.tensor(wrong, device=device)

    def step(self) -> int:
        """Learn from the next batch."""
        start = self._done * self.batch
        chosen = self._order[start : start + self.batch]
        loss, mistakes = self.learn(*self.train.batch(chosen))
        self._loss_sum += loss
        self._wrong += mistakes
        self._done += 1
        return 1

    def learn(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the mistakes of one step."""
        return self.method.step(x, labels)

    def totals(self) -> tuple[float, int]:
        """Return the epoch's sum of losses and count of mistakes."""
        return self._loss_sum.item(), int(self._wrong.item())


class GraphedSteps:
    """Steps captured as a graph of device work, then replayed: a launch instead of a thousand.

    ``GRAPH_STEPS`` of them, in which updates of a step run on beside the next, and one alone for
    what is left of an epoch. A graph reads its place in the epoch from the device, fetches its
    batches, learns and counts, so a replay takes nothing from the host. ``cuda`` is ``torch.cuda``,
    or a stand-in that has its ``Stream``, ``stream``, ``current_stream``, ``CUDAGraph`` and
    ``graph``.
    """

    def __init__(
        self, method: Backprop, train: Resident, batch: int, steps: int, cuda: Any = torch.cuda
    ) -> None:
        self.method, self.train, self.steps, self._cuda = method, train, steps, cuda
        device = train.labels.device
        batch = min(batch, len(train))
        self._order = torch.zeros(steps, batch, dtype=torch.long, device=device)
        self._done = torch.zeros(1, dtype=torch.long, device=device)
        self._one = torch.ones_like(self._done)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._wrong = torch.zeros((), dtype=torch.long, device=device)
        self._graphs: dict[int, Any] = {}
        self._stream: Any = None  # of both captures: torch has few of a priority

    def begin(self, order: Tensor, done: int, loss_sum: float, wrong: int) -> None:
        """Start or go on with an epoch; the first time, capture its steps."""
        self._order.copy_(order[: self._order.numel()].view_as(self._order))
        whole, alone = divmod(self.steps - done, GRAPH_STEPS)
        for count, wanted in ((GRAPH_STEPS, whole), (1, alone)):
            if wanted and count not in self._graphs:
                self._graphs[count] = self._capture(count)
        self._taken = done
        self.method.plan(self.steps)
        self._done.fill_(done)
        self._loss_sum.fill_(loss_sum)
        self._wrong.fill_(wrong)

    def _body(self, count: int) -> None:
        for step in range(count):
            chosen = self._order.index_select(0, self._done).flatten()
            loss, mistakes = self.method.learn(*self.train.batch(chosen), join=step == count - 1)
            self._loss_sum += loss
            torch._foreach_add_([self._wrong, self._done], [mistakes, self._one])  # one launch

    def _capture(self, count: int) -> Any:
        """Capture steps without taking one: what the warm-up changes is put back."""
        cuda, method = self._cuda, self.method
        gc.collect()  # what earlier runs left, or it might be freed within the capture
        before = copy.deepcopy((method.state_dict(), method.streams.state_dict()))
        method.plan(self.steps)
        # What the step itself launches goes before the updates that run beside it.
        side = self._stream = self._stream or cuda.Stream(priority=PRIORITY)
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(WARM_STEPS):
                self._done.zero_()
                self._body(1)
        cuda.current_stream().wait_stream(side)
        method.load_state_dict(before[0])
        method.streams.load_state_dict(before[1])
        method.plan(self.steps)
        graph = cuda.CUDAGraph()
        for generator in method.streams.on_device():
            graph.register_generator_state(generator)
        # A capture that fails leaves its stream the current one.
        with cuda.stream(cuda.current_stream()), cuda.graph(graph, stream=side):
            self._body(count)
        return graph

    def step(self) -> int:
        """Learn from the next batches; returns before the device has."""
        count = GRAPH_STEPS if self.steps - self._taken >= GRAPH_STEPS else 1
        self._graphs[count].replay()
        self._taken += count
        return count

    def totals(self) -> tuple[float, int]:
        """Return the epoch's sum of losses and count of mistakes; waits for the device."""
        self.method.replayed()
        return self._loss_sum.item(), int(self._wrong.item())


def steps_of(method: Method, train: Resident, batch: int, steps: int) -> Steps:
    """Return the fastest way to take ``method``'s steps where it runs."""
    if train.labels.is_cuda and isinstance(method, Backprop) and method.graphable:
        return GraphedSteps(method, train, batch, steps)
    return EagerSteps(method, train, batch)
