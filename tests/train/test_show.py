"""The lines of a preset's progress: the time left."""

from types import SimpleNamespace
from typing import Any

import pytest

from harness.run import show


class _Group:
    """Stands for the group that trains: keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int, float]] = []

    def closed(self, name: str) -> None: ...

    def left(self, name: str, seconds: float, epochs: int, own: float) -> float:
        self.heard.append((seconds, epochs, own))
        return own


def _epoch(number: int) -> dict[str, Any]:
    figures = {"train_loss": 0.5, "valid_error_pct": 2.0, "test_error_pct": 3.0}
    return figures | {"epoch": number, "best": number == 1, "images_per_s": 10.0}


@pytest.mark.parametrize(("epochs", "kept", "left"), [(20, 5, "7.0 min"), (100, 10, "1.4 h")])
def test_a_slow_start_is_soon_forgotten(
    epochs: int,
    kept: int,
    left: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    monkeypatch.setattr(show, "time", SimpleNamespace(monotonic=lambda: now))
    group = _Group()
    lines = show.Lines("run", "name", epochs, group, line_seconds=0)  # type: ignore[arg-type]
    first = 7  # where a piece before this one ended
    lines.start(SimpleNamespace(epoch=first, step=0, metrics=[_epoch(1)]))  # type: ignore[arg-type]
    for number in range(first + 1, first + kept + 2):
        now += 600.0 if number == first + 1 else 60.0
        lines.epoch(_epoch(number))
    begun, *_, last = group.heard
    assert group.heard[1] == (60.0, 1, 60.0 * (epochs - first - 2)), "without the start"
    assert begun == (600.0, 1, 600.0 * (epochs - first - 1))
    assert last == (kept * 60.0, kept, 60.0 * (epochs - first - 1 - kept))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"run goes on in epoch 8 of {epochs}"
    assert "best 2.00 % (test 3.00 %) in epoch 1" in said[1]
    assert f"left: run {left}" in said[-1]
