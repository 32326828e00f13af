"""``bnn run``: a preset in one process, cut anywhere and gone on to the very same results."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from piece_helpers import (
    DET,
    FLOAT,
    SMALL,
    WILD,
    assert_same_preset,
    not_again,
    run_here,
    stop_after,
    words,
)  # fmt: skip
from train_children import run_cli, run_cli_and_die
from train_helpers import read_run

from harness.deploy import evaluate
from harness.errors import HarnessError
from harness.report.frames import read_frames
from harness.run import show, training
from harness.run.clock import Clock
from harness.run.group import CLOSING_SHARE
from harness.spec import get_mode, load_recipe
from harness.train import loop
from harness.train.record import RunSpec
from harness.train.run import run_training
from harness.train.session import Session
from harness.train.steps import EagerSteps

Child = Callable[..., tuple[int, str]]
STEPS = 66  # an epoch of the stand-in's training split, in batches of 100
FAILED, GO_ON = 3, 75


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Return the folder of a preset that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_here(folder, data_root) == FAILED
    return folder


def test_runs_of_one_process_are_those_of_a_process_each(
    whole: Path, data_root: Path, tmp_path: Path
) -> None:
    for name, mode in ((DET, "bnn-det"), (FLOAT, "float")):
        spec = RunSpec(load_recipe("theano", "mnist", SMALL), get_mode(mode), 0, "small", tmp_path)
        run_training(spec, data_root, torch.device("cpu"), 1e9)
        theirs = whole / "work" / "runs" / name / "best.safetensors"
        assert (tmp_path / "best.safetensors").read_bytes() == theirs.read_bytes()


def test_what_is_kept_is_small_and_whole(whole: Path) -> None:
    names = {path.name for path in (whole / "out").rglob("*") if path.is_file()}
    records = {"run.json", "metrics.jsonl", "inspect.json", "export.json", "model.bnn"}
    frames = {f"{name}.csv" for name in vars(read_frames(whole / "out"))}
    assert names == records | frames | {"evaluate-vendor-fp32.json"}
    runs = read_frames(whole / "out").runs.set_index(["mode", "seed"])
    assert list(runs["status"]) == ["done", "done", "failed"]
    assert runs.loc[("bnn-det", 0), "export"] == "done"
    (evaluation,) = read_frames(whole / "out").evaluations.to_dict("records")
    assert evaluation["agree"] == evaluation["images"] == 2000
    origins = read_frames(whole / "out").provenance
    assert set(origins["stage"]) == {"train", "evaluate"}


@pytest.mark.parametrize(
    ("moment", "count"),
    [("step", 3 * STEPS + 9), ("model.bnn", 1), ("run.json", 3)],
    ids=["second-run", "while-exporting", "while-keeping"],
)
def test_a_killed_preset_goes_on_to_the_same_results(
    child: Child, whole: Path, data_root: Path, tmp_path: Path, moment: str, count: int
) -> None:
    arguments = words(tmp_path, data_root, "--checkpoint-seconds", "0")
    code, _ = child(run_cli_and_die, arguments, moment, count, signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, output = child(run_cli, arguments)
    assert code == FAILED, output
    assert_same_preset(tmp_path, whole)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_sigterm_writes_a_checkpoint_and_the_frames(
    child: Child, whole: Path, data_root: Path, tmp_path: Path
) -> None:
    arguments = words(tmp_path, data_root)
    code, output = child(run_cli_and_die, arguments, "step", 3 * STEPS + 9, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "the same command goes on" in output
    checkpoint = tmp_path / "work" / "runs" / FLOAT / "checkpoint.pt"
    assert f"keep {tmp_path / 'out'}, {checkpoint} (" in output
    state = torch.load(checkpoint, weights_only=True)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 9)
    assert list(read_frames(tmp_path / "out").runs["status"]) == ["done", "running"]
    code, output = child(run_cli, arguments)
    assert code == FAILED, output
    assert "preset small: 1 of 3 runs are there" in output
    assert f"[2/3] {FLOAT} goes on in epoch 2 of 2" in output
    assert_same_preset(tmp_path, whole)


def test_a_stop_behind_the_last_step_keeps_the_run_and_begins_no_other(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Session._finish

    def stopped(self: Session, *arguments: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return finish(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_finish", stopped)
        assert run_here(tmp_path, data_root) == 128 + signal.SIGTERM
    assert list(read_frames(tmp_path / "out").runs["status"]) == ["done"]
    assert not (tmp_path / "work" / "runs" / FLOAT).exists()
    monkeypatch.setattr(EagerSteps, "learn", not_again(EagerSteps.learn, 3 * STEPS))
    assert run_here(tmp_path, data_root) == FAILED
    assert list(read_frames(tmp_path / "out").runs["status"]) == ["done", "done", "failed"]


def test_runs_of_any_kind_in_turns_reach_the_same_results(
    child: Child, whole: Path, data_root: Path, tmp_path: Path
) -> None:
    """One of them fails, all others go on."""
    code, output = child(run_cli, words(tmp_path, data_root, "--together", "3", "--mixed"))
    assert code == FAILED, output
    assert_same_preset(tmp_path, whole)
    kept = tmp_path / "out" / "runs"
    found = [read_run(kept / name) for name in (DET, FLOAT, WILD)]
    assert [(run["together"], run["mixed"], run["images_per_s"]) for run in found] == [
        (3, True, None)
    ] * 3, "their shares are no measure of speed"


def test_pieces_of_limited_time_reach_the_end(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    while not statuses or statuses[-1] == GO_ON:
        with monkeypatch.context() as patch:
            patch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, 50, signal.SIGALRM))
            statuses.append(run_here(tmp_path, data_root, Clock(60)))
        assert len(statuses) < 20, "every piece gains something"
    assert statuses == [GO_ON] * (5 * STEPS // 50) + [FAILED]  # one epoch of the diverging run
    assert_same_preset(tmp_path, whole)


def test_the_alarm_is_set_for_what_is_left_to_do_at_the_end(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, alarms = loop.evaluate, []

    def slow(*arguments: object) -> tuple[float, float]:
        time.sleep(0.5)
        return evaluated(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "evaluate", slow)
    monkeypatch.setattr(signal, "setitimer", lambda _, seconds: alarms.append(seconds))
    clock = Clock(60)
    assert run_here(tmp_path, data_root, clock, only=(DET,)) == 0
    reserved = [3600 - training.FRAMES_SECONDS - seconds for seconds in alarms[:-1]]
    assert all(low >= 0 for low in reserved), "frames are written in time"
    spent = 3600 - clock.left()
    assert max(reserved) > CLOSING_SHARE * 0.5, "and so is a validation"
    assert max(reserved) < CLOSING_SHARE * spent + spent
    assert alarms[-1] == 0, "no alarm is left behind"


def test_no_run_is_begun_just_before_the_end(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "START_SECONDS", 3590.0)  # of an hour: the first run alone begins
    assert run_here(tmp_path, data_root, Clock(60, spent=5)) == GO_ON
    assert [path.name for path in (tmp_path / "work").rglob("theano-*")] == ["theano-bnn-det"]
    assert list(read_frames(tmp_path / "out").runs["status"]) == ["done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_evaluating_goes_on_with_the_stage(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], number: int,
) -> None:  # fmt: skip
    compare = evaluate._Check.compare
    with monkeypatch.context() as patch:

        def stopped(self: object, kernel: object) -> object:
            signal.raise_signal(number)
            return compare(self, kernel)  # type: ignore[arg-type]

        patch.setattr(evaluate._Check, "compare", stopped)
        assert run_here(tmp_path, data_root) == 128 + number
    trained = tmp_path / "work" / "runs" / DET
    assert f"keep {tmp_path / 'out'}, {trained} (" in capsys.readouterr().out
    assert not (tmp_path / "work" / "runs" / FLOAT).exists()
    (row,) = read_frames(tmp_path / "out").runs.to_dict("records")
    assert (row["mode"], row["status"]) == ("bnn-det", "done"), "it has ended its training"
    monkeypatch.setattr(EagerSteps, "learn", not_again(EagerSteps.learn, 3 * STEPS))
    assert run_here(tmp_path, data_root) == FAILED
    assert_same_preset(tmp_path, whole)


def test_runs_that_are_kept_are_done_without_the_work_folder(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    monkeypatch.setattr(EagerSteps, "learn", lambda *_: pytest.fail("it trains again"))
    assert run_here(tmp_path, data_root) == FAILED
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    (tmp_path / "out" / "runs" / DET / "model.bnn").unlink()
    monkeypatch.undo()
    assert run_here(tmp_path, data_root, only=(DET,)) == 0
    model = Path("out") / "runs" / DET / "model.bnn"
    assert (tmp_path / model).read_bytes() == (whole / model).read_bytes()


def test_a_kernel_that_came_later_is_asked_for_but_no_run_is_trained_again(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    monkeypatch.setattr(EagerSteps, "learn", lambda *_: pytest.fail("it trains again"))
    later = {"kernels": ["vendor-fp32", "vendor-bf16"]}
    assert run_here(tmp_path, data_root, only=(DET,), **later) == 0
    record = tmp_path / "out" / "runs" / DET / "evaluate-vendor-bf16.json"
    assert not record.exists(), "its weights are elsewhere"
    shutil.copytree(whole / "work", tmp_path / "work", dirs_exist_ok=True)
    assert run_here(tmp_path, data_root, only=(DET,), **later) == 0
    assert json.loads(record.read_text())["status"] in ("done", "unavailable")


def test_a_checkpoint_alone_moves_a_run_to_another_machine(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, STEPS + 5))
        assert run_here(here, data_root) == 128 + signal.SIGTERM
    folder = Path("work") / "runs" / DET
    (there / folder).mkdir(parents=True)
    shutil.copytree(here / "out", there / "out")
    shutil.copy(here / folder / "checkpoint.pt", there / folder)
    rest = (STEPS - 5) + 2 * STEPS + STEPS  # of the second epoch, and the two other runs
    monkeypatch.setattr(EagerSteps, "learn", not_again(EagerSteps.learn, rest))
    assert run_here(there, data_root) == FAILED
    assert_same_preset(there, whole)


def test_an_unfinished_run_has_a_curve_and_no_result(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, STEPS + 5))
    assert run_here(tmp_path, data_root) == 128 + signal.SIGTERM
    frames = read_frames(tmp_path / "out")
    (row,) = frames.runs.to_dict("records")
    assert row["status"] == "running"
    assert row["failure"] == "reached epoch 1; still training, or killed"
    assert frames.runs[["valid_error_pct", "test_error_pct"]].isna().all(axis=None)
    assert list(frames.epochs["epoch"]) == [1]
    kept = {path.name for path in (tmp_path / "out" / "runs").rglob("*.*")}
    assert kept == {"run.json", "metrics.jsonl"}


def test_changed_settings_train_again_and_leave_nothing_of_before(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole / "work", tmp_path / "work")
    shutil.copytree(whole / "out", tmp_path / "out")
    monkeypatch.setitem(SMALL, "epochs", 1)
    old = (tmp_path / "out" / "runs" / DET / "model.bnn").read_bytes()
    assert run_here(tmp_path, data_root, only=("*bnn-det*",)) == 0
    assert (tmp_path / "out" / "runs" / DET / "model.bnn").read_bytes() != old
    assert read_run(tmp_path / "out" / "runs" / DET)["epochs_done"] == 1
    record = json.loads((tmp_path / "out" / "runs" / DET / "inspect.json").read_text())
    trained = read_run(tmp_path / "work" / "runs" / DET)
    assert record["test_error_pct"] == trained["test_error_pct"]


def test_what_other_settings_left_is_not_kept(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a damaged record of a run that was not reached stop the others."""
    shutil.copytree(whole / "work", tmp_path / "work")
    monkeypatch.setitem(SMALL, "epochs", 3)
    (tmp_path / "work" / "runs" / WILD / "run.json").write_text("")
    monkeypatch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, STEPS + 5))
    assert run_here(tmp_path, data_root) == 128 + signal.SIGTERM
    (row,) = read_frames(tmp_path / "out").runs.to_dict("records")
    assert (row["mode"], row["status"], row["epochs"]) == ("bnn-det", "running", 1)


def test_a_checkpoint_without_a_record_is_named_too(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As Snakemake leaves a stopped run: it deletes what the rule declares."""
    folder = tmp_path / "work" / "runs" / FLOAT
    for only in ((FLOAT,), ()):
        with monkeypatch.context() as patch:
            patch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, STEPS + 5))
            assert run_here(tmp_path, data_root, only=only) == 128 + signal.SIGTERM
        (folder / "run.json").unlink(missing_ok=True)
    assert f"{folder / 'checkpoint.pt'} (" in capsys.readouterr().out.splitlines()[-2]


def test_an_evaluation_of_earlier_weights_is_made_again(
    whole: Path, data_root: Path, tmp_path: Path
) -> None:
    for place in ("work", "out"):
        shutil.copytree(whole / place, tmp_path / place)
    record = tmp_path / "work" / "runs" / DET / "evaluate-vendor-fp32.json"
    before = json.loads(record.read_text())
    assert before["weights_sha256"] == read_run(record.parent)["best_sha256"]
    record.write_text(json.dumps({**before, "weights_sha256": "of another epoch", "agree": 0}))
    (tmp_path / "out" / "runs" / DET / "inspect.json").unlink()
    assert run_here(tmp_path, data_root, only=(DET,)) == 0
    assert json.loads(record.read_text())["agree"] == before["agree"]


def test_a_run_that_meets_an_error_does_not_stop_the_others(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    train = training.train_in_turns

    def broken(specs: list[RunSpec], *rest: object, **more: object) -> object:
        if specs[0].mode.name == "bnn-det":
            raise HarnessError("no room left")
        return train(specs, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_in_turns", broken)
        assert run_here(tmp_path, data_root) == FAILED
    output = capsys.readouterr().out
    assert f"[1/3] {DET} error: no room left" in output
    assert "2 of 3 runs done, of which 1 failed" in output
    assert f"error: {DET}\n" in output
    assert f"failed: {WILD}\n" in output
    assert run_here(tmp_path, data_root, only=(DET, FLOAT)) == 0, "an error is tried again"


def test_many_epochs_are_few_lines(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(SMALL, "epochs", 8)
    monkeypatch.setattr(show.Lines.__init__, "__defaults__", (1e9,))
    assert run_here(tmp_path, data_root, only=(FLOAT,)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " epoch " in line]
    epochs = [line.split(" epoch ")[1].split()[0] for line in lines if "/8" in line]
    assert epochs == ["1/8", "8/8"]
    assert "left: run 0 s, preset about 0 s" in lines[1]
