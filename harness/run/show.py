"""The progress of a preset on stdout: a line an epoch, but never more than one in some seconds."""

import time
from collections import deque
from typing import Any

from harness.run.group import Group
from harness.text import hours_text
from harness.train.loop import Progress

LINE_SECONDS = 5.0  # 1000 epochs of 0.2 s are 40 lines
FEWEST_EPOCHS = 5  # that the time left is estimated from, or a tenth of the run's if that is more


def say(text: str) -> None:
    """Print a line at once: a pipe would hold it back to the end."""
    print(text, flush=True)


class Lines:
    """Shows the epochs of run ``name``; its group hears of them, and knows the time left."""

    def __init__(
        self, title: str, name: str, epochs: int, group: Group, line_seconds: float = LINE_SECONDS
    ) -> None:
        self._title, self._name, self._epochs, self._group = title, name, epochs, group
        self._line_seconds = line_seconds
        self._best = "no best yet"
        # When the last epochs ended, and before them the start or one more: other work on the
        # machine is soon forgotten, and what a start took with the second epoch.
        self._ends: deque[float] = deque(maxlen=2 + max(FEWEST_EPOCHS, epochs // 10))
        self._shown = -float("inf")

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def start(self, progress: Progress) -> None:
        """Begin where the run stands."""
        for metrics in progress.metrics:
            self._note_best(metrics)
        self._ends.append(time.monotonic())
        if progress.epoch or progress.step:
            epoch = min(progress.epoch + 1, self._epochs)
            say(f"{self._title} goes on in epoch {epoch} of {self._epochs}")
        else:
            say(f"{self._title} begins: {self._epochs} epochs")

    def step(self, progress: Progress) -> None:
        """Hand a step on."""
        self._group.step(self._name, progress.saving_s)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Show an epoch's figures, and the time left, where the last line is old enough."""
        self._group.closed(self._name)
        self._note_best(metrics)
        now, epoch = time.monotonic(), metrics["epoch"]
        self._ends.append(now)
        first = int(len(self._ends) > 2)
        spent, done = now - self._ends[first], len(self._ends) - 1 - first
        own = spent / done * (self._epochs - epoch)
        preset = self._group.left(self._name, spent, done, own)
        if now - self._shown < self._line_seconds and epoch < self._epochs:
            return
        self._shown = now
        say(
            f"{self._title} epoch {epoch}/{self._epochs}  loss {metrics['train_loss']:.4f}"
            f"  valid {metrics['valid_error_pct']:.2f} %  {self._best}"
            f"  {metrics['images_per_s']:.0f} images/s"
            f"  left: run {hours_text(own / 3600)}"
            + ("" if preset is None else f", preset about {hours_text(preset / 3600)}")
        )

    def _note_best(self, metrics: dict[str, Any]) -> None:
        if metrics["best"]:
            test = metrics["test_error_pct"]
            self._best = (
                f"best {metrics['valid_error_pct']:.2f} % (test {test:.2f} %) "
                f"in epoch {metrics['epoch']}"
            )
