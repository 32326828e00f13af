"""The progress of a run: a bar on a terminal, a line an epoch in a log."""

import sys
import time
from typing import Any, Protocol

from tqdm import tqdm

from harness.train.loop import Progress


class Show(Protocol):
    """What a run tells of its progress while it trains."""

    def __enter__(self) -> "Show": ...

    def __exit__(self, *exception: object) -> None: ...

    def start(self, progress: Progress) -> None:
        """Begin where the run stands."""
        ...

    def step(self, progress: Progress) -> None:
        """Count what was learned since."""
        ...

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Show an epoch's figures."""
        ...


class ProgressBar:
    """Shows epoch, loss, validation error, images/s and time left, after the run's ``name``."""

    def __init__(self, epochs: int, steps: int, batch: int, name: str = "") -> None:
        self._epochs, self._steps, self._batch = epochs, steps, batch
        self._name = f"{name}: " if name else ""
        self._bar: Any = tqdm(
            total=epochs * steps * batch,
            unit="image",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self._began, self._first = time.monotonic(), 0
        self._state: dict[str, str] = {}

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def start(self, progress: Progress) -> None:
        """Set the bar to where a resumed run stands."""
        self._first = progress.epoch
        self._bar.update((progress.epoch * self._steps + progress.step) * self._batch)
        self._bar.set_description(f"{self._name}epoch {progress.epoch + 1}/{self._epochs}")

    def step(self, progress: Progress) -> None:
        """Move to where the run stands."""
        done = (progress.epoch * self._steps + progress.step) * self._batch
        self._bar.update(done - self._bar.n)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Show an epoch's figures."""
        epoch = metrics["epoch"]
        if not self._bar.disable:
            shown = min(epoch + 1, self._epochs)
            self._bar.set_description(f"{self._name}epoch {shown}/{self._epochs}")
            self._bar.set_postfix(
                loss=f"{metrics['train_loss']:.4f}", valid=f"{metrics['valid_error_pct']:.2f}%"
            )
            return
        spent = time.monotonic() - self._began
        left = spent / (epoch - self._first) * (self._epochs - epoch)
        test = metrics["test_error_pct"]
        print(
            f"{self._name}epoch {epoch}/{self._epochs}  loss {metrics['train_loss']:.4f}"
            f"  valid {metrics['valid_error_pct']:.2f} %"
            f"  {'test ' + format(test, '.2f') + ' %' if test is not None else 'no new best'}"
            f"  {metrics['images_per_s']:.0f} images/s  {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
