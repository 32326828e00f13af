import json

import pytest
from filelock import FileLock

from harness.errors import HarnessError
from harness.track import Mirror
from harness.track.sync import sync_runs


def _artifacts(uri, run):
    from harness.track.store import Store

    return sorted(f.path for f in Store(uri, "quick").client.list_artifacts(run.info.run_id))


def test_missing_runs_are_replayed_once(make, tmp_path, uri, stored, history):
    for seed in range(2):
        make.write_folder(tmp_path, make.ended(make.run_json(seed)), make.epochs())
    assert sync_runs(uri, tmp_path) == {"added": 2}
    assert sync_runs(uri, tmp_path) == {"unchanged": 2}
    runs = stored()
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.info.start_time == 1767323045000
        assert history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert run.data.metrics["best/epoch"] == 3
        assert _artifacts(uri, run) == ["curve.png", "metrics.jsonl", "run.json"]


def test_a_partial_live_mirror_is_completed(make, tmp_path, uri, stored, history):
    run = make.run_json()
    folder = make.write_folder(tmp_path, make.ended(run), make.epochs())
    live = Mirror.open(uri, run, folder)
    live.epoch(make.epochs()[0])  # then tracking went down
    assert sync_runs(uri, tmp_path) == {"updated": 1}
    (found,) = stored()
    assert found.info.status == "FINISHED"
    assert [step for step, _ in history(found, "valid/loss")] == [1, 2, 3]


def test_a_complete_live_mirror_gains_only_artifacts(make, tmp_path, uri, stored, history):
    run = make.run_json()
    folder = make.write_folder(tmp_path, make.ended(run), make.epochs())
    live = Mirror.open(uri, run, folder)
    for row in make.epochs():
        live.epoch(row)
    live.finish(make.ended(run))
    (folder / "model.bnn").write_bytes(b"packed")
    evaluation = {"status": "done", "kernel": "xnor-cpu", "agree": 10, "test_error_pct": 1.5}
    (folder / "evaluate-xnor-cpu.json").write_text(json.dumps(evaluation))
    sync_runs(uri, tmp_path)
    (found,) = stored()
    assert len(history(found, "train/loss")) == 3
    assert len(history(found, "best/test_error_pct")) == 1
    assert found.data.metrics["packed/xnor-cpu/agree"] == 10
    assert "model.bnn" in _artifacts(uri, found)


def test_a_killed_run_is_ended_and_revived(make, tmp_path, uri, stored):
    run = make.run_json()
    folder = make.write_folder(tmp_path, run, make.epochs(1))
    Mirror.open(uri, run, folder).epoch(make.epochs()[0])
    assert stored()[0].info.status == "RUNNING"
    sync_runs(uri, tmp_path)
    assert stored()[0].info.status == "KILLED"
    again = Mirror.open(uri, run, folder)
    assert stored()[0].info.status == "RUNNING"
    again.finish(make.ended(run))
    assert [one.info.status for one in stored()] == ["FINISHED"]


def test_a_run_restarted_from_nothing_ends_its_orphan(make, tmp_path, uri, stored):
    Mirror.open(uri, make.run_json(), tmp_path)
    later = make.ended(make.run_json(started="2026-01-02T04:00:00+00:00"))
    make.write_folder(tmp_path, later, make.epochs())
    sync_runs(uri, tmp_path)
    assert sorted(run.info.status for run in stored()) == ["FINISHED", "KILLED"]


def test_a_variation_that_trains_is_no_orphan_of_the_plain_run(make, tmp_path, uri, stored):
    Mirror.open(uri, make.run_json(label="no-clip"), tmp_path)
    make.write_folder(tmp_path, make.ended(make.run_json()), make.epochs())
    sync_runs(uri, tmp_path)
    found = {run.data.tags.get("label"): run.info.status for run in stored()}
    assert found == {"no-clip": "RUNNING", None: "FINISHED"}


def test_a_run_in_training_is_left_to_its_own_process(make, tmp_path, uri, stored):
    folder = make.write_folder(tmp_path, make.run_json(), make.epochs(1))
    with FileLock(folder / "lock"):
        assert sync_runs(uri, tmp_path) == {"skipped": 1}
        Mirror.open(uri, make.run_json(), folder)
        assert sync_runs(uri, tmp_path) == {"updated": 1}
    assert [run.info.status for run in stored()] == ["RUNNING"]


def test_values_that_contradict_the_files_are_replaced(make, tmp_path, uri, stored, history):
    run = make.run_json()
    folder = make.write_folder(tmp_path, make.ended(run), make.epochs())
    live = Mirror.open(uri, run, folder)
    live.epoch({"epoch": 1, "train_loss": 99.0})
    assert sync_runs(uri, tmp_path) == {"replaced": 1}
    (found,) = stored()
    assert history(found, "train/loss")[0] == (1, 1.0)


def test_a_failed_run_keeps_its_reason(make, tmp_path, uri, stored):
    failure = {"epoch": 2, "reason": "loss is NaN"}
    run = make.ended(make.run_json(), 1, status="failed", failure=failure, test_error_pct=None)
    make.write_folder(tmp_path, run, make.epochs(1))
    sync_runs(uri, tmp_path)
    (found,) = stored()
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "loss is NaN"


def test_a_corrupt_line_is_named(make, tmp_path, uri):
    folder = make.write_folder(tmp_path, make.ended(make.run_json()), make.epochs(1))
    with open(folder / "metrics.jsonl", "a") as lines:
        lines.write('{"epoch": 2,\n')
    with pytest.raises(HarnessError, match=r"metrics\.jsonl, line 2 is not JSON"):
        sync_runs(uri, tmp_path)


@pytest.mark.parametrize("name", ["run.json", "evaluate-naive.json"])
@pytest.mark.parametrize("text", ["null", "[]", "{}"])
def test_a_record_of_another_kind_is_named(make, tmp_path, uri, name, text):
    folder = make.write_folder(tmp_path, make.ended(make.run_json()), make.epochs())
    (folder / name).write_text(text)
    with pytest.raises(HarnessError, match=rf"{name}: (expected a JSON object|key 'status')"):
        sync_runs(uri, tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path, uri):
    with pytest.raises(HarnessError, match=r"no run\.json below"):
        sync_runs(uri, tmp_path)
