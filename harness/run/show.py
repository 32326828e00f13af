"""The progress of a preset on stdout: a line an epoch, but never more than one in some seconds."""

import time
from collections.abc import Callable
from typing import Any

from harness.text import hours_text
from harness.train.loop import Progress

LINE_SECONDS = 5.0  # 1000 epochs of 0.2 s are 40 lines


def say(text: str) -> None:
    """Print a line at once: a pipe would hold it back to the end."""
    print(text, flush=True)


class Lines:
    """Shows a run's epochs; ``closing(seconds)`` hears how long each took after its last step.

    ``rest(seconds an epoch, epochs)`` learns what the epochs of this process took, and returns the
    seconds that the preset's other runs need, None where nothing is known.
    """

    def __init__(
        self,
        title: str,
        epochs: int,
        rest: Callable[[float, int], float | None],
        closing: Callable[[float], None],
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self._title, self._epochs, self._rest, self._closing = title, epochs, rest, closing
        self._line_seconds = line_seconds
        self._best = "no best yet"
        self._began = self._stepped = time.monotonic()
        self._shown = -float("inf")
        self._first = 0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def start(self, progress: Progress) -> None:
        """Begin where the run stands."""
        self._first = progress.epoch
        for metrics in progress.metrics:
            self._note_best(metrics)
        self._began = self._stepped = time.monotonic()
        if progress.epoch or progress.step:
            say(f"{self._title} goes on in epoch {progress.epoch + 1} of {self._epochs}")
        else:
            say(f"{self._title} begins: {self._epochs} epochs")

    def step(self, progress: Progress) -> None:
        """Note when the last step was."""
        self._stepped = time.monotonic()

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Show an epoch's figures, and the time left, where the last line is old enough."""
        now, epoch = time.monotonic(), metrics["epoch"]
        self._closing(now - self._stepped)
        self._note_best(metrics)
        done = epoch - self._first
        rest = self._rest(now - self._began, done)
        if now - self._shown < self._line_seconds and epoch < self._epochs:
            return
        self._shown = now
        left = (now - self._began) / done * (self._epochs - epoch)
        say(
            f"{self._title} epoch {epoch}/{self._epochs}  loss {metrics['train_loss']:.4f}"
            f"  valid {metrics['valid_error_pct']:.2f} %  {self._best}"
            f"  {metrics['images_per_s']:.0f} images/s"
            f"  left: run {hours_text(left / 3600)}"
            + ("" if rest is None else f", preset about {hours_text((left + rest) / 3600)}")
        )

    def _note_best(self, metrics: dict[str, Any]) -> None:
        if metrics["best"]:
            test = metrics["test_error_pct"]
            self._best = (
                f"best {metrics['valid_error_pct']:.2f} % (test {test:.2f} %) "
                f"in epoch {metrics['epoch']}"
            )
