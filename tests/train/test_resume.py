"""Runs that are killed, stopped, bereft of their files, and go on to the very same result."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from train_children import run_cli, run_cli_and_die
from train_helpers import TINY, assert_same_results, command, read_metrics, read_run, train_here

from harness.deploy.evaluate import evaluation_name
from harness.deploy.export import EXPORT
from harness.deploy.modelfile import MODEL
from harness.errors import HarnessError
from harness.inspect.run import INSPECT
from harness.provenance import provenance
from harness.train import record, session
from harness.train.checkpoint import CHECKPOINT, load_checkpoint
from harness.train.loop import Interrupted, Trainer
from harness.train.steps import EagerSteps
from kernels import registry

Child = Callable[..., tuple[int, str]]
STEPS_PER_EPOCH = 66  # of the stand-in's training split, in batches of 100


@pytest.mark.parametrize(
    ("moment", "count"),
    [("step", STEPS_PER_EPOCH + 20), ("rename", 2 * STEPS_PER_EPOCH + 9), ("rename", 1)],
    ids=["in-epoch-2", "while-writing-a-checkpoint", "while-writing-the-first-checkpoint"],
)
def test_killed_run_resumes_to_the_same_result(
    child: Child, data_root: Path, uninterrupted: Path, tmp_path: Path, moment: str, count: int
) -> None:
    folder = tmp_path / "run"
    arguments = command(folder, data_root, every=0)
    code, _ = child(run_cli_and_die, arguments, moment, count, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert read_run(folder)["status"] == "running"
    assert (folder / CHECKPOINT).exists() == ((moment, count) != ("rename", 1))
    code, output = child(run_cli, command(folder, data_root, every=1e9))
    assert code == 0, output
    assert ("resuming at epoch" in output) == ((moment, count) != ("rename", 1))
    assert_same_results(folder, uninterrupted)
    assert not list(folder.glob(".*.tmp")), "what the kill left half-written is gone"


def test_sigterm_writes_a_checkpoint_and_exits_143(
    child: Child, data_root: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = command(folder, data_root, every=1e9)
    count = STEPS_PER_EPOCH + 31
    code, output = child(run_cli_and_die, arguments, "step", count, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on" in output
    assert (folder / CHECKPOINT).exists()
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 31)
    code, output = child(run_cli, arguments)
    assert code == 0, output
    assert "resuming at epoch 2" in output
    assert_same_results(folder, uninterrupted)


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal before its ``count``-th training step from now."""
    step, left = EagerSteps.learn, [count]

    def stopping(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> object:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(number)
        return step(self, x, labels)

    monkeypatch.setattr(EagerSteps, "learn", stopping)


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [("theano", "bnn-stoch-w"), ("torch7", "bnn-stoch"), ("torch7-released", "bnn-stoch")],
)
def test_every_random_stream_and_moment_goes_on(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    mode: str,
) -> None:
    settings = {"recipe": recipe, "mode": mode, "epochs": 2, "network.hidden": [16]}
    train_here(tmp_path / "whole", data_root, **settings)
    # Mid-epoch, in the last step of the first epoch, and in the first of the second.
    for count in (20, STEPS_PER_EPOCH - 20, 1):
        with monkeypatch.context() as patch:
            stop_at(patch, count)
            with pytest.raises(Interrupted, match="SIGINT"):
                train_here(tmp_path / "pieces", data_root, **settings)
    train_here(tmp_path / "pieces", data_root, **settings)
    assert_same_results(tmp_path / "pieces", tmp_path / "whole")


def test_signal_handlers_are_put_back(data_root: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    train_here(tmp_path, data_root, epochs=1, **{"network.hidden": [4]})
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_outputs_deleted_beside_the_checkpoint_come_back(
    data_root: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2 * STEPS_PER_EPOCH + 5)
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root)
    started = read_run(tmp_path)["started"]
    trained = load_checkpoint(tmp_path, read_run(tmp_path)["fingerprint"])
    assert trained is not None
    for name in ("run.json", "metrics.jsonl", "best.safetensors"):
        (tmp_path / name).unlink()
    seen = []
    epoch = Trainer._train_epoch

    def watched(self: Trainer) -> Iterator[object]:
        seen.append(self.progress.epoch)
        return epoch(self)

    monkeypatch.setattr(Trainer, "_train_epoch", watched)
    run = train_here(tmp_path, data_root)
    assert seen == [2], "the first two epochs are not trained again"
    assert run["started"] == started
    assert run["train_seconds"] > trained["progress"]["seconds"]
    assert_same_results(tmp_path, uninterrupted)


def test_finished_run_is_not_trained_again(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"epochs": 1, "network.hidden": [4]}
    first = train_here(tmp_path, data_root, **small)
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "lock"}
    assert set(files) == {"run.json", "metrics.jsonl", "best.safetensors"}
    with monkeypatch.context() as patch:
        patch.setattr(EagerSteps, "learn", lambda *_: pytest.fail("it trains again"))
        assert train_here(tmp_path, data_root, **small) == first
    again = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "lock"}
    assert again == files
    (tmp_path / "best.safetensors").unlink()
    train_here(tmp_path, data_root, **small)
    assert (tmp_path / "best.safetensors").exists(), "a run that lost a file makes it again"
    other = train_here(tmp_path, data_root, seed=1, **small)
    assert other["seed"] == 1, "other settings are another run"


@pytest.mark.parametrize("text", ["null", "[]", "{}", ""])
def test_a_record_that_is_none_is_made_again(data_root: Path, tmp_path: Path, text: str) -> None:
    small = {"epochs": 1, "network.hidden": [4]}
    first = train_here(tmp_path, data_root, **small)
    (tmp_path / "run.json").write_text(text)
    assert train_here(tmp_path, data_root, **small)["best_sha256"] == first["best_sha256"]
    assert read_run(tmp_path)["status"] == "done"


def test_a_checkpoint_of_another_version_of_the_code_is_named(
    data_root: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    fingerprint = read_run(uninterrupted)["fingerprint"]
    torch.save({"fingerprint": fingerprint, "network": {}}, tmp_path / CHECKPOINT)
    with pytest.raises(HarnessError, match=r"checkpoint\.pt does not fit this version.*delete it"):
        train_here(tmp_path, data_root)
    torch.save([fingerprint], tmp_path / CHECKPOINT)
    assert load_checkpoint(tmp_path, fingerprint) is None


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "bit", "other-settings"])
def test_unusable_checkpoint_starts_anew_and_says_so(
    data_root: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root, seed=7 if damage == "other-settings" else 0)
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    changed = {"truncated": content[:3000], "empty": b"", "text": b"no archive", "bit": content}
    path.write_bytes(changed.get(damage, path.read_bytes()))
    stop_at(monkeypatch, 1)
    with pytest.raises(Interrupted):
        train_here(tmp_path, data_root)
    assert "starting anew" in caplog.text
    assert str(path) in caplog.text
    state = load_checkpoint(tmp_path, read_run(uninterrupted)["fingerprint"])
    assert state is not None
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (0, 1)
    assert read_metrics(tmp_path) == []


STAGES = (EXPORT, MODEL, INSPECT, evaluation_name(registry.get("naive", "cpu")))


def test_training_anew_leaves_nothing_of_the_stages_after(data_root: Path, tmp_path: Path) -> None:
    train_here(tmp_path, data_root, **TINY)
    for name in STAGES:
        (tmp_path / name).write_text("{}")
    train_here(tmp_path, data_root, **TINY)
    assert all((tmp_path / name).exists() for name in STAGES), "it has ended; they are its own"
    train_here(tmp_path, data_root, **{**TINY, "epochs": 1})
    assert not any((tmp_path / name).exists() for name in STAGES)


def test_the_end_of_training_leaves_nothing_of_earlier_weights(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bnn export, evaluate and inspect with --allow-running make them."""
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS_PER_EPOCH + 5)
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root, **TINY)
    for name in STAGES:
        (tmp_path / name).write_text("{}")
    train_here(tmp_path, data_root, **TINY)
    assert not any((tmp_path / name).exists() for name in STAGES)


def test_a_checkpoint_that_a_kill_left_beside_a_whole_run_goes(
    data_root: Path, tmp_path: Path
) -> None:
    train_here(tmp_path, data_root, **TINY)
    (tmp_path / CHECKPOINT).write_bytes(b"of the last epoch")
    train_here(tmp_path, data_root, **TINY)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_run_that_other_code_began_says_so(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    began = {"commit": "a" * 40, "dirty": False}
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS_PER_EPOCH + 5)
        patch.setattr(record, "provenance", lambda: {**provenance(), **began})
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root, **TINY)
    assert read_run(tmp_path)["earlier_code"] == []
    assert "other code" not in caplog.text
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    # A copy of the very commit, of which no changes are known.
    same = {**provenance(), **began, "dirty": None}
    monkeypatch.setattr(record, "provenance", lambda: same)
    train_here(tmp_path.with_name("copy"), data_root, **TINY)
    assert "other code" not in caplog.text
    monkeypatch.setattr(record, "provenance", lambda: {**provenance(), "commit": "b" * 40})
    train_here(tmp_path, data_root, **TINY)
    assert "trained up to epoch 1 by other code (commit aaaaaaaaaaaa, here" in caplog.text
    (earlier,) = read_run(tmp_path)["earlier_code"]
    assert earlier["commit"] == began["commit"] and earlier["machine"] and earlier["versions"]


def test_other_changes_of_one_commit_are_other_code(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    dirty = {**provenance(), "commit": "a" * 40, "dirty": True}
    monkeypatch.setattr(record, "provenance", lambda: dirty)
    monkeypatch.setattr(session, "uncommitted", lambda: "one")
    with monkeypatch.context() as patch:
        stop_at(patch, STEPS_PER_EPOCH + 5)
        with pytest.raises(Interrupted):
            train_here(tmp_path, data_root, **TINY)
    monkeypatch.setattr(session, "uncommitted", lambda: "two")
    train_here(tmp_path, data_root, **TINY)
    both = "commit aaaaaaaaaaaa + changes"
    assert f"by other code ({both}, here {both})" in caplog.text


def test_a_run_of_other_settings_is_not_replaced_in_silence(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_here(tmp_path, data_root, **TINY)
    assert "replaced" not in caplog.text
    train_here(tmp_path, data_root, **{**TINY, "epochs": 1})
    assert f"{tmp_path} holds a run of other settings or data: replaced" in caplog.text
