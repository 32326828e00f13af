"""The time that a piece has, and the signals that end it."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.train.loop import Interrupted


def process_age() -> float:
    """Return the seconds since this process began: Python's start and its imports count too."""
    import psutil

    return max(0.0, time.time() - float(psutil.Process(os.getpid()).create_time()))


class Clock:
    """Ends a piece in time, or when a signal asks for it, by :class:`Interrupted`.

    While a network trains, the trainer catches SIGTERM and writes a checkpoint first; the alarm of
    the time's end becomes a SIGTERM, and :attr:`over` tells the two apart. ``minutes`` 0: no end.
    """

    def __init__(self, minutes: float = 0.0, spent: float = 0.0) -> None:
        left = 60 * minutes - spent if minutes else math.inf
        self._ends = time.monotonic() + left
        self._asked: int | None = None
        self._quiet = False
        self.over = False

    def __enter__(self) -> "Clock":
        handlers = {
            signal.SIGTERM: self._ask, signal.SIGINT: self._ask, signal.SIGALRM: self._end,
        }  # fmt: skip
        self._before = {n: signal.signal(n, handler) for n, handler in handlers.items()}
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def left(self) -> float:
        """Return the seconds left, infinite where there is no end."""
        return self._ends - time.monotonic()

    def until_alarm(self) -> float:
        """Return the seconds until what goes on is stopped, infinite where there is no end."""
        return 0.0 if self.over else signal.getitimer(signal.ITIMER_REAL)[0] or math.inf

    def reserve(self, seconds: float) -> None:
        """Stop what goes on ``seconds`` before the end: that long it takes to put things away."""
        if not self.over and math.isfinite(self._ends):
            # A timer of 0 would never ring.
            signal.setitimer(signal.ITIMER_REAL, max(self.left() - seconds, 1e-3))

    def end(self) -> None:
        """Take the time for over, as nothing more fits in it.

        Raises:
            Interrupted: always.
        """
        self.over = True
        self.check()

    def note(self, number: int) -> None:
        """Keep a stop in mind that came to a trainer: its last step may have been behind it."""
        self._asked = number

    def check(self) -> None:
        """Stop here if a stop was asked for: a network may have ended its training as it came.

        Raises:
            Interrupted: the time is over, or a signal asked for it.
        """
        if self.over:
            raise Interrupted(signal.SIGTERM)
        if self._asked is not None:
            raise Interrupted(self._asked)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put a stop off to the end of the block: what it writes belongs together.

        Raises:
            Interrupted: a stop was put off.
        """
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
        if self._asked is not None:
            raise Interrupted(self._asked)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        if not self._quiet:
            raise Interrupted(number)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.over = True
        signal.raise_signal(signal.SIGTERM)  # to whoever waits for it now
