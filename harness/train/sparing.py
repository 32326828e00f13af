"""Files that change with every epoch, written only as often as they are worth."""

import time
from collections.abc import Callable

SHARE = 0.01  # of the time, at most, goes into such a file


class Sparing:
    """Writes when asked, but never more than :data:`SHARE` of the time.

    The best weights of an MLP 3 x 4096 are 147 MB, and a GPU's epoch is shorter than their way to
    the disk. What is passed over is pending until the next ask or :meth:`flush`; after a kill the
    checkpoint has it.
    """

    def __init__(
        self, write: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._pending, self._next = False, clock()

    def ask(self) -> None:
        """Write now, or leave it pending where the last write is too near."""
        self._pending = True
        if self._clock() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        began = self._clock()
        self._write()
        ended = self._clock()
        self._pending, self._next = False, ended + (ended - began) * (1 / SHARE - 1)
