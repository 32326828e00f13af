"""A preset of small cases, benched by the command."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.bench import presets
from harness.bench.presets import Item, Preset
from harness.cli import app

CASES = ("layer-5x4x65", "layer-9x4x65", "layer-6x4x65")


def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernels: tuple[str, ...],
    *options: str,
    cases: tuple[str, ...] = CASES,
) -> Any:
    """Bench ``cases`` below ``tmp_path`` as the preset of a CPU."""
    items = [Item(case, kernels, 0.01) for case in cases]
    monkeypatch.setitem(presets.PRESETS, "cpu", Preset("cpu", lambda: items))
    command = ["bench", "--preset", "cpu", "--out", str(tmp_path), *options]
    return CliRunner().invoke(app, command)
