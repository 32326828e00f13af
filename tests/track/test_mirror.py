import multiprocessing
import socket
import subprocess
import sys
import time
from pathlib import Path

from harness.track import Mirror, mirror


def test_without_an_address_nothing_happens(make, tmp_path):
    run = make.run_json()
    none = Mirror.open(None, run, tmp_path)
    none.epoch(make.epochs()[0])
    none.finish(make.ended(run))
    assert list(tmp_path.iterdir()) == []


def test_a_run_appears_while_it_goes_on(make, tmp_path, uri, stored, history):
    run = make.run_json()
    live = Mirror.open(uri, run, tmp_path)
    for row in make.epochs(2):
        live.epoch(row)
    (found,) = stored()
    assert found.info.status == "RUNNING"
    assert found.info.run_name == "mnist/theano/bnn-det/0"
    assert found.data.tags["mode"] == "bnn-det"
    assert found.data.params["network.hidden"] == "[8, 8]"
    assert history(found, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert found.inputs.dataset_inputs[0].dataset.name == "mnist-standin"
    live.finish(make.ended(run, 2))
    (found,) = stored()
    assert found.info.status == "FINISHED"
    assert found.data.metrics["best/test_error_pct"] == 17.5


def test_a_short_run_is_left_to_the_sync(make, tmp_path, uri, stored):
    live = Mirror.open(uri, make.run_json(), tmp_path, after=60.0)
    live.epoch(make.epochs()[0])
    live.finish(make.ended(make.run_json()))
    assert stored() == []


def test_a_run_that_lasts_is_mirrored_with_its_first_epochs(make, tmp_path, uri, stored, history):
    live = Mirror.open(uri, make.run_json(), tmp_path, after=0.2)
    first, second = make.epochs()[:2]
    live.epoch(first)
    assert stored() == []
    time.sleep(0.2)
    live.epoch(second)
    live.finish(make.ended(make.run_json()))
    (found,) = stored()
    assert [step for step, _ in history(found, "lr")] == [1, 2]
    assert found.info.status == "FINISHED"


def test_a_failed_run_says_why(make, tmp_path, uri, stored):
    run = make.run_json()
    failure = {"epoch": 2, "reason": "loss is NaN"}
    Mirror.open(uri, run, tmp_path).finish(make.ended(run, status="failed", failure=failure))
    (found,) = stored()
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "loss is NaN"


def test_a_resumed_run_goes_on_in_place(make, tmp_path, uri, stored, history):
    run = make.run_json()
    first = Mirror.open(uri, run, tmp_path)
    for row in make.epochs(2):
        first.epoch(row)
    again = Mirror.open(uri, run, tmp_path)
    for row in make.epochs(3)[1:]:  # the checkpoint was one epoch behind
        again.epoch(row)
    again.finish(make.ended(run))
    (found,) = stored()
    assert [step for step, _ in history(found, "valid/error_pct")] == [1, 2, 3]


def _log_run(uri: str, run: dict, rows: list, folder: Path) -> None:
    live = Mirror.open(uri, run, folder)
    for row in rows:
        live.epoch(row)
    live.finish(run | {"status": "done", "epochs_done": len(rows), "test_error_pct": 1.0})


def test_eight_processes_on_a_missing_database_lose_nothing(make, tmp_path, stored, history):
    # The address of the fixtures is that of a ready database; here all eight find none.
    (tmp_path / "mlflow.db").unlink()
    address = f"sqlite:///{tmp_path}/mlflow.db"
    context = multiprocessing.get_context("forkserver")
    # Loaded once for all eight: the import is not what is tested, and takes seconds.
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "harness.track"])
    jobs = [
        context.Process(
            target=_log_run, args=(address, make.run_json(seed), make.epochs(20), tmp_path)
        )
        for seed in range(8)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 8
    runs = stored()
    assert sorted(run.data.tags["seed"] for run in runs) == [str(seed) for seed in range(8)]
    assert all(run.info.status == "FINISHED" for run in runs)
    assert all(len(history(run, "train/loss")) == 20 for run in runs)


def test_a_server_that_is_down_warns_once_and_training_goes_on(make, tmp_path, caplog, uri):
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{port.getsockname()[1]}"
    live = Mirror.open(address, make.run_json(), tmp_path)
    for row in make.epochs():
        live.epoch(row)
    live.finish(make.ended(make.run_json()))
    (warning,) = caplog.records
    assert "bnn track sync" in warning.getMessage()
    assert address in warning.getMessage()


def test_a_server_that_hangs_costs_its_timeout_once(make, tmp_path, monkeypatch, uri, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        live = Mirror.open(address, make.run_json(), tmp_path)
        start = time.monotonic()
        for row in make.epochs(20):
            live.epoch(row)
        assert time.monotonic() - start < 0.5
    assert len(caplog.records) == 1


def test_what_was_pending_is_sent_when_tracking_is_back(
    make, tmp_path, uri, stored, history, monkeypatch, caplog
):
    monkeypatch.setattr(mirror, "FIRST_RETRY_SECONDS", 0.0)
    database = tmp_path / "mlflow.db"
    ready = database.read_bytes()
    database.write_text("this is not a database")
    live = Mirror.open(uri, make.run_json(), tmp_path)
    live.epoch(make.epochs()[0])
    database.write_bytes(ready)
    live.epoch(make.epochs()[1])
    (found,) = stored()
    assert [step for step, _ in history(found, "lr")] == [1, 2]
    assert len(caplog.records) == 1


def test_training_goes_on_where_mlflow_is_not_installed(tmp_path):
    script = """
import sys
sys.modules["mlflow"] = None
sys.modules["mlflow.tracking"] = None
from pathlib import Path
from harness.track import Mirror
live = Mirror.open("sqlite:///x.db", {"preset": "quick", "status": "running"}, Path("."))
live.epoch({"epoch": 1, "train_loss": 1.0})
live.finish({"preset": "quick", "status": "done"})
"""
    root = str(Path(mirror.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("training goes on") == 1


def test_a_database_that_cannot_be_opened_costs_no_time(make, tmp_path, caplog):
    (tmp_path / "folder.db").mkdir()
    began = time.monotonic()
    live = Mirror.open(f"sqlite:///{tmp_path / 'folder.db'}", make.run_json(), tmp_path)
    live.finish(make.ended(make.run_json()))
    assert time.monotonic() - began < 30, "MLflow alone tries for 100 s"
    assert "cannot open" in caplog.text
