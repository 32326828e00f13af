"""The training loop: epochs, model selection on validation, checkpoints, divergence."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from harness.methods import Method
from harness.spec import Recipe
from harness.train.checkpoint import save_checkpoint
from harness.train.evaluation import evaluate
from harness.train.inputs import Resident
from harness.train.steps import steps_of

# An all-zero scorer has a square hinge loss of 1; nothing that still learns comes near this.
DIVERGED_LOSS = 1000.0
OTHER_ERRORS = ("other_valid_error_pct", "other_test_error_pct")


class Diverged(Exception):
    """The loss or a weight is NaN or infinite, or the loss past :data:`DIVERGED_LOSS`."""

    def __init__(self, epoch: int, what: str) -> None:
        super().__init__(f"{what} in epoch {epoch}")
        self.epoch = epoch


class Stopped(BaseException):
    """The run was asked to stop; its checkpoint is written.

    No Exception: what takes any failure for a damaged file, say, must let it pass.
    """


class Paused(Stopped):
    """Another run of the process asked for it."""


class Interrupted(Stopped):
    """SIGTERM or SIGINT asked for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopping(request: Callable[[int], None]) -> Iterator[None]:
    """Call ``request`` with the number of a SIGTERM or SIGINT that comes within the block."""

    def ask(number: int, frame: FrameType | None) -> None:
        request(number)

    handlers = {n: signal.signal(n, ask) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclass
class Progress:
    """Where a run stands: all of it goes into the checkpoint."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    wrong: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_valid_error_pct: float = math.inf
    best_epoch: int | None = None
    other_best_error_pct: float = math.inf
    other_best_epoch: int | None = None
    lr: float | None = None
    started: str = ""
    code: list[dict[str, Any]] = field(default_factory=list)  # of all commits that trained it
    together: int = 1  # as many runs, at most, took turns with this one and itself
    mixed: bool = False  # and some of them differed in more than their seed
    saving_s: float = 0.0  # the longest that this process took to write a checkpoint
    metrics: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains one network by its method; the same calls resume it bit for bit on the CPU."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        splits: dict[str, Resident],
        folder: Path,
        fingerprint: str,
        checkpoint_seconds: float,
    ) -> None:
        self.recipe, self.method = recipe, method
        self.network, self.streams = method.network, method.streams
        self.splits, self.folder = splits, folder
        self.fingerprint, self.checkpoint_seconds = fingerprint, checkpoint_seconds
        self.progress = Progress()
        self.best_state: dict[str, Tensor] = {}
        self.order = torch.empty(0, dtype=torch.long)
        self.signs: Tensor | None = method.signs()
        self._steps = steps_of(method, splits["train"], recipe.batch, self.steps_per_epoch)
        self.turns = 1  # runs that take turns in this process, this one too
        self._counted = math.nan  # until then the epoch's seconds are counted
        self._stop: int | None = None
        self._pause = False
        self._saved_at = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the authors drop the remainder too."""
        return max(len(self.splits["train"]) // self.recipe.batch, 1)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "fingerprint": self.fingerprint,
            "method": self.method.state_dict(),
            "streams": self.streams.state_dict(),
            "order": self.order,
            "signs": self.signs,
            "progress": dict(vars(self.progress)),
            "best_state": self.best_state,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.method.load_state_dict(state["method"])
        self.streams.load_state_dict(state["streams"])
        self.order = state["order"]
        self.signs = state["signs"]
        self.progress = Progress(**state["progress"])
        self.progress.saving_s = 0.0  # it may have been another disk
        self.best_state = state["best_state"]

    def checkpoint(self) -> None:
        """Write the resumable state now."""
        began = time.monotonic()
        save_checkpoint(self.folder, self.state())
        self._saved_at = time.monotonic()
        self.progress.saving_s = max(self.progress.saving_s, self._saved_at - began)

    def advance(self, on_epoch: Callable[[dict[str, Any], bool], None]) -> Iterator[Progress]:
        """Train to the last epoch, yielding after each step, or graph of steps;
        ``on_epoch(metrics, is_best)``.

        Raises:
            Diverged: the loss or a weight left the finite range.
            Interrupted: :meth:`request_stop` was called; the checkpoint is written.
            Paused: :meth:`request_pause` was called; the checkpoint is written.
        """
        while self.progress.epoch < self.recipe.epochs:
            yield from self._train_epoch()
            metrics, best = self._close_epoch()
            on_epoch(metrics, best)
            self._checkpoint_if_due()

    def request_stop(self, number: int) -> None:
        """Stop after the present step or graph, with a checkpoint, for signal ``number``."""
        self._stop = number

    def request_pause(self) -> None:
        """Stop after the present step or graph, with a checkpoint."""
        self._pause = True

    def share_time(self, turns: int) -> None:
        """Count the time from now on as that of ``turns`` runs: an epoch has its share of it."""
        self._count_seconds()
        self.turns = turns

    def _count_seconds(self) -> None:
        now = time.monotonic()
        if math.isfinite(self._counted):
            self.progress.epoch_seconds += (now - self._counted) / self.turns
            self._counted = now

    def _checkpoint_if_due(self) -> None:
        if not self._due():
            return
        self.checkpoint()
        if self._stop is not None:
            raise Interrupted(self._stop)
        if self._pause:
            raise Paused

    def _train_epoch(self) -> Iterator[Progress]:
        progress = self.progress
        if progress.step == 0:
            self.order = torch.randperm(
                len(self.splits["train"]), generator=self.streams["shuffle"]
            )
        progress.lr = self.method.start_epoch(progress.epoch, fresh=progress.step == 0)
        steps = self._steps
        steps.begin(self.order, progress.step, progress.loss_sum, progress.wrong)
        self._counted = time.monotonic()

        def take_totals() -> None:
            progress.loss_sum, progress.wrong = steps.totals()  # waits for the device
            self._count_seconds()

        while progress.step < self.steps_per_epoch:
            progress.step += steps.step()
            if self._due():
                take_totals()
                self._checkpoint_if_due()
                self._counted = time.monotonic()
            yield progress
        take_totals()
        self._counted = math.nan

    def _due(self) -> bool:
        asked = self._stop is not None or self._pause
        return asked or time.monotonic() - self._saved_at >= self.checkpoint_seconds

    def _check_finite(self, what: str, loss: float) -> None:
        epoch = self.progress.epoch + 1
        if not math.isfinite(loss) or (what == "training loss" and loss > DIVERGED_LOSS):
            raise Diverged(epoch, f"{what} {loss:g}")
        # The sign of a NaN is -1: a network of NaN weights would go on with a finite loss.
        trained = self.method.trained()
        finite = torch.stack([tensor.isfinite().all() for tensor in trained.values()])
        if not finite.all():  # read back once: a GPU waits for the host each time
            name = list(trained)[int(finite.to(torch.uint8).argmin())]
            raise Diverged(epoch, f"a value of {name} is not finite")

    def _flip_pct(self) -> float | None:
        """Return in % how many binary weights changed their sign since the last epoch ended."""
        before, self.signs = self.signs, self.method.signs()
        if before is None or not len(before) or not len(self.signs):
            return None
        flipped = (self.signs != before.to(self.signs.device)).sum().item()
        return 100 * flipped / len(self.signs)

    def _close_epoch(self) -> tuple[dict[str, Any], bool]:
        progress = self.progress
        train_loss = progress.loss_sum / self.steps_per_epoch
        self._check_finite("training loss", train_loss)
        seen = min(self.steps_per_epoch * self.recipe.batch, len(self.splits["train"]))
        valid_loss, valid_error = evaluate(self.method.end_epoch(), self.splits["valid"])
        self._check_finite("validation loss", valid_loss)
        selectable = self.method.selectable(progress.epoch)
        best = selectable and valid_error < progress.best_valid_error_pct
        metrics = {
            "epoch": progress.epoch + 1,
            "lr": progress.lr,
            "train_loss": train_loss,
            "train_error_pct": 100 * progress.wrong / seen,
            "valid_loss": valid_loss,
            "valid_error_pct": valid_error,
            "test_error_pct": None,
            "flip_pct": self._flip_pct(),
            "best": best,
            "seconds": round(progress.epoch_seconds, 3),
            "images_per_s": round(seen / progress.epoch_seconds, 1),
            **self._other_errors(),
        }
        if best:
            metrics["test_error_pct"] = evaluate(self.network, self.splits["test"])[1]
            progress.best_valid_error_pct, progress.best_epoch = valid_error, progress.epoch + 1
            self.best_state = {k: v.clone() for k, v in self.network.state_dict().items()}
        progress.metrics.append(metrics)
        progress.seconds += progress.epoch_seconds
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.wrong, progress.epoch_seconds = 0.0, 0, 0.0
        return metrics, best

    def _other_errors(self) -> dict[str, float | None]:
        """Return the errors with the method's other weights, tested for its own new bests alone."""
        progress = self.progress
        errors: dict[str, float | None] = dict.fromkeys(OTHER_ERRORS)
        if self.method.other_weights:
            valid = self.method.other_error_pct(self.splits["valid"])
            errors["other_valid_error_pct"] = valid
            if valid < progress.other_best_error_pct:
                progress.other_best_error_pct = valid
                progress.other_best_epoch = progress.epoch + 1
                errors["other_test_error_pct"] = self.method.other_error_pct(self.splits["test"])
        return errors
