"""Writes that are passed over are pending, never lost."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from train_helpers import assert_same_results, read_metrics, train_here

from harness.train import session
from harness.train.loop import Interrupted, Trainer
from harness.train.sparing import SHARE, Sparing


def test_writes_take_their_share_of_the_time_at_most() -> None:
    now, writes = [0.0], []

    def write() -> None:
        writes.append(now[0])
        now[0] += 2.0  # seconds that a write takes

    sparing = Sparing(write, lambda: now[0])
    for _ in range(10_000):
        now[0] += 0.25
        sparing.ask()
    assert writes[0] == 0.25, "the first is written at once"
    spent = 2.0 * (len(writes) - 1) / now[0]
    assert 0.8 * SHARE < spent <= SHARE
    count = len(writes)
    sparing.flush()
    sparing.flush()
    assert len(writes) in (count, count + 1), "a flush writes what is pending, once"


@pytest.fixture
def no_epoch_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass every write over that an epoch asks for."""

    class Never(Sparing):
        def ask(self) -> None:
            self._pending = True

    monkeypatch.setattr(session, "Sparing", Never)


@pytest.mark.usefixtures("no_epoch_writes")
def test_a_run_that_ends_has_all_that_was_passed_over(
    data_root: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    train_here(tmp_path, data_root)
    assert_same_results(tmp_path, uninterrupted)


@pytest.mark.usefixtures("no_epoch_writes")
def test_a_run_that_is_stopped_has_all_that_was_passed_over(
    data_root: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = Trainer._train_epoch

    def stopping(self: Trainer) -> Iterator[object]:
        if self.progress.epoch == 1:
            signal.raise_signal(signal.SIGTERM)
        return train_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stopping)
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root)
    assert read_metrics(tmp_path) == read_metrics(uninterrupted)[:1]
    assert (tmp_path / "best.safetensors").exists()
    train_here(tmp_path, data_root)
    assert_same_results(tmp_path, uninterrupted)
