"""Reading the epochs that training wrote into a run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError


def read_epochs(folder: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``; none where the file is missing.

    Raises:
        HarnessError: a line is not a JSON object with an epoch, or the file is cut short: it has
            fewer epochs than ``run``, the run's record; the message names the file.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = [_epoch(path, number, line) for number, line in enumerate(lines[:-1], 1)]
    done = run.get("epochs_done") or 0
    if len(rows) < done:
        raise HarnessError(
            f"{path} holds {len(rows)} of {done} epochs: delete the run folder and train it again"
        )
    return rows


def _epoch(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        found = error.msg
    else:
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            return row
        found = "no object with an epoch"
    raise HarnessError(
        f"{path}, line {number} is not JSON ({found}): delete the run folder and train it again"
    )
