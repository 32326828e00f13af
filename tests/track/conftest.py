"""Run folders with made-up numbers, and an empty MLflow database a test."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def run_json(seed: int = 0, preset: str = "quick", **changes: Any) -> dict[str, Any]:
    run = {
        "schema": 1,
        "status": "running",
        "failure": None,
        "preset": preset,
        "dataset": "mnist",
        "source": "standin",
        "recipe": "theano",
        "variant": "paper",
        "mode": "bnn-det",
        "seed": seed,
        "resolved": {"network": {"kind": "mlp", "hidden": [8, 8]}, "epochs": 3},
        "data": {"dataset": "mnist", "source": "standin", "digest": "d1" * 32},
        "device": "cpu",
        "threads": 1,
        "parameters": {"binary_weights": 100, "total": 120},
        "provenance": {"commit": "c0ffee", "dirty": False, "machine": {"name": "box-2c"}},
        "started": "2026-01-02T03:04:05+00:00",
        "finished": None,
        "epochs_done": 0,
        "best_epoch": None,
        "valid_error_pct": None,
        "test_error_pct": None,
    }
    return run | changes


def epochs(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "lr": 0.1 / epoch,
            "train_loss": 1.0 / epoch,
            "train_error_pct": 30.0 / epoch,
            "valid_loss": 1.1 / epoch,
            "valid_error_pct": 33.0 / epoch,
            "test_error_pct": 35.0 / epoch,
            "best": True,
            "seconds": 2.0,
            "images_per_s": 1000.0,
        }
        for epoch in range(1, count + 1)
    ]


def ended(run: dict[str, Any], count: int = 3, **changes: Any) -> dict[str, Any]:
    return run | {
        "status": "done",
        "finished": "2026-01-02T03:05:05+00:00",
        "epochs_done": count,
        "best_epoch": count,
        "valid_error_pct": 33.0 / count,
        "test_error_pct": 35.0 / count,
        "train_seconds": 2.0 * count,
        **changes,
    }


def write_folder(results: Path, run: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    name = f"{run['recipe']}-{run['mode']}"
    folder = results / "runs" / run["dataset"] / name / f"seed{run['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def make() -> Any:
    """Give tests the builders of this module without an import path."""

    class Make:
        run_json = staticmethod(run_json)
        epochs = staticmethod(epochs)
        ended = staticmethod(ended)
        write_folder = staticmethod(write_folder)

    return Make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables once: MLflow's migrations take seconds."""
    pytest.importorskip("mlflow", reason="needs the tracking extra")
    from harness.track.store import Store

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    store = Store(f"sqlite:///{path}", "template")
    store.client.delete_experiment(store.experiment_id)
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    """Return the address of a fresh database, artifacts beside it."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def stored(uri: str) -> Any:
    """Return a function giving the live MLflow runs of a preset."""
    from harness.track.store import Store

    def runs(preset: str = "quick") -> list[Any]:
        store = Store(uri, preset)
        return list(store.client.search_runs([store.experiment_id]))

    return runs


@pytest.fixture
def history(uri: str) -> Any:
    """Return a function giving [(step, value)] of a metric of an MLflow run."""
    from harness.track.store import Store

    def points(run: Any, name: str) -> list[tuple[int, float]]:
        client = Store(uri, "quick").client
        return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))

    return points
