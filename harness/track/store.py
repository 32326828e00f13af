"""A thin wrapper of the MLflow client: the only module that imports MLflow."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import HarnessError
from harness.track import record

DEFAULT_URI = "sqlite:///results/mlflow.db"
LOCK_SECONDS = 120.0  # eight processes opening one new database take about 5 s

# A server that hangs must not hold up training: one short try, then the files wait for a sync.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}
_BATCH = 900  # MLflow takes at most 1,000 metrics and 100 parameters or tags in a call
_PAIRS = 100

NOTE = """\
One run of the harness per row, named `dataset/recipe/mode/seed`.

**Columns to pick:** tags `dataset`, `recipe`, `mode`, `seed`, `source`, `machine`; metrics
`best/valid_error_pct`, `best/test_error_pct`, `best/epoch`, `speed/images_per_s`.
**To filter:** `tags.dataset = "mnist" and tags.mode = "bnn-det"`; `tags.source = "standin"` marks
runs on generated data, whose errors say nothing about the paper's.
**To compare curves:** select runs, *Chart* view, metrics `train/loss` and `valid/error_pct`.

The truth is in the run folders; this page is rebuilt from them with `bnn track sync`.
"""


def prepare_environment() -> None:
    """Set MLflow's switches (no telemetry, short timeouts), keeping what the user has set."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    # It would repeat for every try what the mirror says once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when it is absent, down, locked or of another version."""
    expected: list[type[Exception]] = [ImportError, OSError, HarnessError]
    try:
        from alembic.util.exc import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return tuple(expected)
    return (*expected, MlflowException, SQLAlchemyError, CommandError)


def database_path(uri: str) -> Path | None:
    """Return the file behind a ``sqlite:///`` address, or None for any other address."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).resolve() if uri.startswith(prefix) else None


def _guard(uri: str) -> Any:
    # Processes that all start on a missing database crash in its migration: one at a time.
    database = database_path(uri)
    if database is None:
        return nullcontext()
    # Loaded before the lock is taken: it takes seconds, and eight processes would queue for it.
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    database.parent.mkdir(parents=True, exist_ok=True)
    try:  # MLflow tries to open it for 100 s, and holds the lock all the while
        sqlite3.connect(database, timeout=5).close()
    except sqlite3.Error as error:
        raise HarnessError(f"cannot open {database}: {error}") from error
    return FileLock(f"{database}.lock", timeout=LOCK_SECONDS)


class Store:
    """One preset's experiment in one MLflow. Every call may raise one of :func:`errors`."""

    def __init__(self, uri: str, preset: str) -> None:
        """Open, and where needed create, the database and the preset's experiment."""
        prepare_environment()
        from mlflow.tracking import MlflowClient

        self.uri = uri
        with _guard(uri):
            self.client = MlflowClient(tracking_uri=uri)
            self.experiment_id = self._experiment(record.experiment_name(preset))

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise HarnessError(
                    f"experiment {name!r} was deleted in {self.uri}; "
                    f"restore it with `mlflow experiments restore -x {found.experiment_id}`"
                )
            return str(found.experiment_id)
        database = database_path(self.uri)
        artifacts = (database.parent / "mlartifacts").as_uri() if database else None
        tags = {"mlflow.note.content": NOTE}
        try:
            return str(self.client.create_experiment(name, artifact_location=artifacts, tags=tags))
        except MlflowException:
            # Another process may have been first on a server, where no lock is shared.
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def find(self, fingerprint: str) -> Any | None:
        """Return the MLflow run with this fingerprint, or None."""
        query = f"tags.`{record.FINGERPRINT_TAG}` = '{fingerprint}'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        return found[0] if found else None

    def orphans(self, run: Mapping[str, Any]) -> list[str]:
        """Return runs left RUNNING by killed processes that this very run took over from."""
        mine = record.tags(run)
        same = [key for key in (*record.IDENTITY, "machine") if key in mine]
        query = " and ".join(f"tags.{key} = '{mine[key]}'" for key in same)
        found = self.client.search_runs(
            [self.experiment_id], f"attributes.status = 'RUNNING' and {query}"
        )
        # A run without a label lacks that tag, which no query can ask for.
        tag, label = record.FINGERPRINT_TAG, mine.get("label")
        return [
            str(other.info.run_id)
            for other in found
            if other.data.tags.get(tag) != mine[tag] and other.data.tags.get("label") == label
        ]

    def create(self, run: Mapping[str, Any]) -> Any:
        """Create the MLflow run of a ``run.json`` with its tags, parameters and dataset."""
        created = self.client.create_run(
            self.experiment_id,
            start_time=record.milliseconds(run.get("started")),
            tags=record.tags(run),
            run_name=record.run_name(run),
        )
        self.describe(created, run)
        return created

    def describe(self, mlflow_run: Any, run: Mapping[str, Any]) -> None:
        """Write the tags that changed and the parameters that are missing, and the dataset."""
        from mlflow.entities import Param, RunTag

        run_id, data = mlflow_run.info.run_id, mlflow_run.data
        tags = {k: v for k, v in record.tags(run).items() if data.tags.get(k) != v}
        params = {k: v for k, v in record.parameters(run).items() if k not in data.params}
        for some in _chunks(tags.items(), _PAIRS):
            self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in some])
        for some in _chunks(params.items(), _PAIRS):
            self.client.log_batch(run_id, params=[Param(k, v) for k, v in some])
        if not getattr(mlflow_run.inputs, "dataset_inputs", None):
            self._dataset(run_id, run.get("data") or {})

    def _dataset(self, run_id: str, manifest: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        if not manifest.get("digest"):
            return
        name = f"{manifest.get('dataset')}-{manifest.get('source')}"
        dataset = Dataset(name, str(manifest["digest"])[:36], "local", "{}")
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset)])

    def log(self, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Write metrics given as (name, value, step, time in milliseconds), in batches."""
        from mlflow.entities import Metric

        for some in _chunks(points, _BATCH):
            batch = [Metric(name, value, at, step) for name, value, step, at in some]
            self.client.log_batch(run_id, metrics=batch)

    def history(self, run_id: str, names: Iterable[str]) -> dict[tuple[str, int], float]:
        """Return what MLflow holds of these metrics, by (name, step)."""
        return {
            (name, metric.step): metric.value
            for name in names
            for metric in self.client.get_metric_history(run_id, name)
        }

    def close(self, run_id: str, run: Mapping[str, Any], status: str | None = None) -> None:
        """End the MLflow run as ``run.json`` says: done -> FINISHED, failed -> FAILED."""
        ended = {"done": "FINISHED", "failed": "FAILED"}
        chosen = status or ended.get(str(run.get("status")), "RUNNING")
        if chosen == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
            return
        at = record.milliseconds(run.get("finished")) or int(time.time() * 1000)
        self.client.set_terminated(run_id, chosen, end_time=at)


def _chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    some = list(items)
    return (some[start : start + size] for start in range(0, len(some), size))
