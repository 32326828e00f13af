"""Rows of frames whose records are elsewhere: kept where frames are written anew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.report.frames import COLUMNS, RUN_KEYS, read_rows

Row = dict[str, Any]
_KEYS = {
    **dict.fromkeys(("runs", "epochs", "evaluations", "layers", "predictions"), RUN_KEYS),
    "kernels": ("machine", "case", "device", "threads"),
    "correctness": ("machine", "device"),
}
_COUNTED = ("records", "first", "last")
_ORIGIN = tuple(column for column in COLUMNS["provenance"] if column not in _COUNTED)


def with_kept(frames: Mapping[str, list[Row]], folder: Path) -> dict[str, list[Row]]:
    """Return ``frames`` after the rows of ``folder``'s frames that none of theirs replaces.

    A run replaces its own rows in every frame (a run is preset, dataset, source, recipe, label,
    mode and seed), a bench those of its machine, case, device and threads, an origin its own row.
    Frames in a fresh clone keep so what was measured elsewhere, where the records stayed.

    Raises:
        HarnessError: a frame of ``folder`` is damaged.
    """
    runs = {_key(row, RUN_KEYS) for row in frames["runs"]}
    found = {}
    for name, rows in frames.items():
        before = _read(folder / f"{name}.csv", name)
        if name == "provenance":
            found[name] = _origins(before, rows)
            continue
        key = _KEYS[name]
        replaced = runs if key is RUN_KEYS else {_key(row, key) for row in rows}
        before = _without_found(before, rows) if name == "runs" else before
        found[name] = [row for row in before if _key(row, key) not in replaced] + rows
    return found


def _without_found(before: list[Row], rows: list[Row]) -> list[Row]:
    """Return the rows of ``before`` without those of runs that were missing, and are in ``rows``.

    A missing run knows neither its source nor, but by the folder's name, its preset.
    """
    names = tuple(key for key in RUN_KEYS if key not in ("preset", "source"))
    there = {_key(row, names) for row in rows}
    return [row for row in before if row["status"] != "missing" or _key(row, names) not in there]


def _origins(before: list[Row], rows: list[Row]) -> list[Row]:
    known = {_key(row, _ORIGIN): row for row in before}
    for row in rows:
        old = known.get(_key(row, _ORIGIN), {})
        first = [when for when in (old.get("first"), row.get("first")) if when]
        last = [when for when in (old.get("last"), row.get("last")) if when]
        records = max(int(float(old.get("records") or 0)), row["records"])
        times = {"first": min(first, default=None), "last": max(last, default=None)}
        known[_key(row, _ORIGIN)] = {**row, "records": records, **times}
    return list(known.values())


def _read(path: Path, name: str) -> list[Row]:
    if not path.exists():
        return []
    try:
        header, rows = read_rows(path)
        if COLUMNS[name][0] not in header:
            raise ValueError(f"it lacks the column {COLUMNS[name][0]!r}")
    except ValueError as error:
        raise HarnessError(
            f"{path} is damaged ({error}) and has rows to keep: get it back from where it came, "
            "or delete it to go on without them"
        ) from error
    return [{column: row.get(column) or None for column in COLUMNS[name]} for row in rows]


def _key(row: Mapping[str, Any], columns: tuple[str, ...]) -> tuple[str, ...]:
    values = ("" if row.get(column) is None else str(row[column]) for column in columns)
    return tuple(value.removesuffix(".0") for value in values)  # a frame with a hole has floats
