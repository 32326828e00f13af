"""Replay run folders into MLflow: what is missing is added, what is there is left alone."""

import hashlib
import json
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import HarnessError
from harness.files import read_record, sha256_file
from harness.report.folders import read_epochs
from harness.track import record
from harness.track.store import LOCK_SECONDS, Store

_SYNCED_TAG = "bnn.synced"
_ARTIFACTS = ("run.json", "metrics.jsonl", "model.bnn", "export.json")
_log = logging.getLogger("harness.track")

Points = dict[tuple[str, int], tuple[float, int]]


def sync_runs(uri: str, results: Path) -> dict[str, int]:
    """Bring MLflow to the state of every run folder below ``results``.

    A run is found by its fingerprint tag. Metrics already there are not written twice; a run
    whose values in MLflow contradict its files is replaced. A run that was killed and is not
    being trained now is ended as KILLED. Doing it again changes nothing.

    Returns:
        Counts of runs by what was done: added, updated, replaced, unchanged, skipped.

    Raises:
        HarnessError: ``results`` holds no run folder, or a run's file is corrupt.
    """
    # Only where runs are trained: MLflow keeps copies of run.json among its artifacts.
    found = Path(results).glob("**/runs/*/*/seed*/run.json")
    folders = sorted(path.parent for path in found)
    if not folders:
        raise HarnessError(f"no run.json below {results}; train first, or give results/<preset>")
    stores: dict[str, Store] = {}
    counts: Counter[str] = Counter()
    with FileLock(Path(results) / ".track-sync.lock", timeout=LOCK_SECONDS):
        for folder in folders:
            run = read_record(folder / "run.json", "status", *record.IDENTITY)
            preset = str(run.get("preset"))
            stores[preset] = stores.get(preset) or Store(uri, preset)
            counts[_sync_run(stores[preset], run, folder)] += 1
    return dict(counts)


def _sync_run(store: Store, run: Mapping[str, Any], folder: Path) -> str:
    alive = _is_alive(folder)
    digest = _digest(run, folder)
    found = store.find(record.fingerprint(run))
    if found is None and alive:
        return "skipped"  # its own process is about to create it
    if found is not None and found.data.tags.get(_SYNCED_TAG) == digest and not alive:
        return "unchanged"
    done = "updated" if found is not None else "added"
    points = _points(run, folder)
    held = store.history(found.info.run_id, {name for name, _ in points}) if found else {}
    if found is not None and not alive and _contradicts(held, points):
        store.client.delete_run(found.info.run_id)
        found, held, done = None, {}, "replaced"
    if found is None:
        found = store.create(run)
    else:
        store.describe(found, run)
    run_id = str(found.info.run_id)
    missing = [(*key, *point) for key, point in points.items() if key not in held]
    store.log(run_id, ((name, value, step, at) for name, step, value, at in missing))
    if alive:
        return done
    for orphan in store.orphans(run):
        store.client.set_terminated(orphan, "KILLED")
    _attach(store, run_id, run, folder)
    store.close(run_id, run, "KILLED" if run.get("status") == "running" else None)
    store.client.set_tag(run_id, _SYNCED_TAG, digest)
    return done


def _is_alive(folder: Path) -> bool:
    """Tell whether a process holds the run folder's lock now."""
    lock = folder / "lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _digest(run: Mapping[str, Any], folder: Path) -> str:
    parts: list[Any] = [run]
    names = [*_ARTIFACTS[1:], *(path.name for path in sorted(folder.glob("evaluate-*.json")))]
    for name in names:
        path = folder / name
        parts.append([name, sha256_file(path) if path.exists() else None])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _points(run: Mapping[str, Any], folder: Path) -> Points:
    rows = read_epochs(folder, run)
    times = record.epoch_times(run, rows)
    points: Points = {
        (name, int(row["epoch"])): (value, at)
        for row, at in zip(rows, times, strict=True)
        for name, value in record.numbers(row, record.EPOCH_METRICS).items()
    }
    if run.get("status") == "running":
        return points
    step = int(run.get("epochs_done") or 0)
    at = record.milliseconds(run.get("finished")) or (times[-1] if times else 0)
    final = record.numbers(run, record.FINAL_METRICS) | _packed(folder)
    return points | {(name, step): (value, at) for name, value in final.items()}


def _packed(folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for path in sorted(folder.glob("evaluate-*.json")):
        result = read_record(path, "status", "kernel")
        if result["status"] == "done":
            names = {key: f"packed/{result['kernel']}/{key}" for key in ("agree", "test_error_pct")}
            found |= record.numbers(result, names)
    return found


def _contradicts(held: Mapping[tuple[str, int], float], points: Points) -> bool:
    # Wall-clock figures differ between a live epoch and the same one repeated after a kill.
    return any(
        key not in points or not math.isclose(value, points[key][0], rel_tol=1e-9)
        for key, value in held.items()
        if not key[0].startswith("speed/")
    )


def _attach(store: Store, run_id: str, run: Mapping[str, Any], folder: Path) -> None:
    for name in _ARTIFACTS:
        if (folder / name).exists():
            store.client.log_artifact(run_id, str(folder / name))
    rows = read_epochs(folder, run)
    if not rows:
        return
    try:
        from harness.report.figures import draw_run
    except ImportError as error:
        _log.warning("no curve for %s: %s is not installed", record.run_name(run), error.name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "curve.png"
        draw_run(rows, record.run_name(run), picture)
        store.client.log_artifact(run_id, str(picture))
