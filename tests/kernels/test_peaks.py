"""The CPU's popcount ceiling counts what it says, on every thread."""

import numpy as np

from kernels.cpu import peaks


def test_each_word_is_counted_again_and_again() -> None:
    for steps in (0, 1, 2, 5):
        words = peaks.seeds(3)
        wanted = [[_counted(int(word), steps) for word in row] for row in words]
        peaks.popcounts(words, steps)
        assert words.tolist() == wanted


def test_seeds_differ_and_change() -> None:
    words = peaks.seeds(2)
    assert len(set(words.reshape(-1).tolist())) == words.size
    assert all(word != _counted(word, 1) for word in np.ravel(words).tolist())


def _counted(word: int, steps: int) -> int:
    for _ in range(steps):
        word = word.bit_count()
    return word
