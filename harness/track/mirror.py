"""The live mirror of one run: what training calls while it goes on."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.text import one_line
from harness.track import record
from harness.track.store import Store, errors

# A server that hangs costs its timeout (10 s) this long after the last try, then twice that, ...
FIRST_RETRY_SECONDS = 60.0

_log = logging.getLogger("harness.track")


class Tracking(NamedTuple):
    """Where a run is mirrored: an MLflow address, or None for nowhere.

    A run that ends within ``after`` seconds is left to ``bnn track sync``: loading MLflow takes
    longer than a short run's epochs.
    """

    uri: str | None = None
    after: float = 0.0


class Mirror:
    """Copies a run into MLflow as it happens, and never stops it.

    Where MLflow is missing, down, locked or slow, one warning is logged, training goes on, and
    what is pending is tried again later, ever more rarely; the rest is for ``bnn track sync``.
    """

    def __init__(
        self, uri: str | None, run_json: Mapping[str, Any], run_dir: Path, after: float = 0.0
    ) -> None:
        self._uri = uri
        self._run = dict(run_json)
        self._folder = Path(run_dir)
        self._store: Store | None = None
        self._run_id: str | None = None
        self._known: set[int] = set()
        self._pending: list[tuple[str, float, int, int]] = []
        self._opens_at = time.monotonic() + after
        self._retry_at = self._opens_at
        self._wait = FIRST_RETRY_SECONDS
        self._warned = False

    @classmethod
    def open(
        cls, uri: str | None, run_json: Mapping[str, Any], run_dir: Path, after: float = 0.0
    ) -> "Mirror":
        """Return a mirror of the run; ``uri`` None gives one that does nothing.

        A run that was interrupted is found again by its fingerprint and goes on in place. One
        that ends within ``after`` seconds is not mirrored (:class:`Tracking`).
        """
        mirror = cls(uri, run_json, run_dir, after)
        mirror._attempt()
        return mirror

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Mirror one line of ``metrics.jsonl``."""
        if self._uri is None:
            return
        now, step = int(time.time() * 1000), int(metrics["epoch"])
        values = record.numbers(metrics, record.EPOCH_METRICS)
        self._pending += [(name, value, step, now) for name, value in values.items()]
        self._attempt()

    def finish(self, run_json: Mapping[str, Any]) -> None:
        """Mirror the run's final figures, its ``metrics.jsonl`` and how it ended."""
        if self._uri is None:
            return
        self._run = dict(run_json)
        if time.monotonic() < self._opens_at:
            return
        self._retry_at = 0.0
        self._attempt(last=True)

    def _attempt(self, last: bool = False) -> None:
        if self._uri is None or time.monotonic() < self._retry_at:
            return
        try:
            self._send(self._uri, last)
        except errors() as error:
            self._retry_at = time.monotonic() + self._wait
            self._wait *= 2
            self._warn(error)

    def _send(self, uri: str, last: bool) -> None:
        if self._store is None:
            self._store = Store(uri, str(self._run["preset"]))
        if self._run_id is None:
            self._run_id = self._find_or_create(self._store)
        fresh = [point for point in self._pending if point[2] not in self._known]
        self._store.log(self._run_id, fresh)
        self._known |= {step for _, _, step, _ in fresh}
        self._pending.clear()
        if last:
            self._end(self._store, self._run_id)

    def _find_or_create(self, store: Store) -> str:
        found = store.find(record.fingerprint(self._run))
        if found is None:
            return str(store.create(self._run).info.run_id)
        run_id = str(found.info.run_id)
        store.describe(found, self._run)
        store.close(run_id, self._run, "RUNNING")
        # Epochs that a resumed run goes through again are equal to those already there.
        self._known = {step for _, step in store.history(run_id, ["train/loss"])}
        return run_id

    def _end(self, store: Store, run_id: str) -> None:
        step = int(self._run.get("epochs_done") or 0)
        now = record.milliseconds(self._run.get("finished")) or int(time.time() * 1000)
        final = record.numbers(self._run, record.FINAL_METRICS)
        held = store.history(run_id, final)
        points = [(n, v, step, now) for n, v in final.items() if (n, step) not in held]
        store.log(run_id, points)
        lines = self._folder / "metrics.jsonl"
        if lines.exists():
            store.client.log_artifact(run_id, str(lines))
        for tag, value in record.tags(self._run).items():
            if tag == "failure":
                store.client.set_tag(run_id, tag, value)
        store.close(run_id, self._run)

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        _log.warning(
            "tracking at %s does not work (%s); training goes on and the run folder keeps "
            "everything: replay it later with `bnn track sync`",
            self._uri,
            one_line(error),
        )
