"""Reading what the stages wrote into a run folder."""

import json
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_json


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON record and check that it is a mapping with ``keys``.

    Raises:
        HarnessError: not JSON, not a mapping, or a key is missing; the message names the file.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise HarnessError(f"{path}: expected a JSON object, found {type(value).__name__}")
    for key in keys:
        if key not in value:
            raise HarnessError(f"{path}: key {key!r} is missing; delete the file and run again")
    return value


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``metrics.jsonl``; none where the file is missing.

    Raises:
        HarnessError: a line is not a JSON object with an epoch; the message names file and line.
            A last line without its newline is what a killed process leaves, and is dropped.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [_epoch(path, number, line) for number, line in enumerate(lines[:-1], 1)]


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
