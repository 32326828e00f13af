"""``bnn run`` with seeds that train in turns: cut anywhere, each has the results it has alone."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from piece_helpers import SMALL, run_here, words
from train_children import run_cli, run_cli_and_die
from train_helpers import read_metrics, read_run

from harness.errors import HarnessError
from harness.report.frames import read_frames
from harness.run import group, training
from harness.run.clock import Clock
from harness.run.group import Group
from harness.train import together
from harness.train.loop import Trainer
from harness.train.steps import EagerSteps

Child = Callable[..., tuple[int, str]]
SEEDS = 3
STEPS = 66  # an epoch of the stand-in's training split, in batches of 100
ALL = 2 * SEEDS * STEPS
FAILED, GO_ON = 3, 75
PRESET = {
    "runs": [
        {
            "dataset": "mnist",
            "recipe": "theano",
            "modes": ["bnn-det"],
            "seeds": list(range(SEEDS)),
            "threads": 1,
            "set": SMALL,
        }
    ]
}


def name(seed: int) -> str:
    return f"mnist/theano-bnn-det/seed{seed}"


def run_seeds(folder: Path, data: Path, clock: Clock | None = None, most: int = SEEDS) -> int:
    """Run a piece with up to ``most`` seeds in turns, and return its exit status."""
    return run_here(folder, data, clock, together=most, **PRESET)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    assert run_seeds(folder, data_root, most=1) == 0
    return folder


def assert_same_seeds(folder: Path, alone: Path) -> None:
    for seed in range(SEEDS):
        ours, theirs = (root / "work" / "runs" / name(seed) for root in (folder, alone))
        for file in ("best.safetensors", "model.bnn"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes(), (seed, file)
        kept, wanted = (root / "out" / "runs" / name(seed) for root in (folder, alone))
        assert (kept / "model.bnn").read_bytes() == (wanted / "model.bnn").read_bytes()
        assert {path.name for path in kept.iterdir()} == {path.name for path in wanted.iterdir()}
        assert read_metrics(kept) == read_metrics(wanted)
        for key in ("status", "best_epoch", "test_error_pct", "fingerprint", "resolved"):
            assert read_run(kept)[key] == read_run(wanted)[key], key
        assert not (ours / "checkpoint.pt").exists()
    assert list(read_frames(folder / "out").runs["status"]) == ["done"] * SEEDS


def turns(patch: pytest.MonkeyPatch, before: Callable[[int, int], None]) -> list[int]:
    """Call ``before(seed, steps of all so far)`` before each step; return the seeds in turn."""
    advance, learn, order = Trainer.advance, EagerSteps.learn, []
    seeds: dict[int, int] = {}

    def noted(self: Trainer, on_epoch: Any) -> Iterator[Any]:
        seeds[id(self.method)] = int(self.folder.name.removeprefix("seed"))
        return advance(self, on_epoch)

    def counted(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
        order.append(seeds[id(self.method)])
        before(order[-1], len(order))
        return learn(self, x, labels)

    patch.setattr(Trainer, "advance", noted)
    patch.setattr(EagerSteps, "learn", counted)
    return order


def test_seeds_in_turns_are_the_seeds_one_by_one(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = turns(monkeypatch, lambda seed, steps: None)
    assert run_seeds(tmp_path, data_root) == 0
    assert order == [0, 1, 2] * (2 * STEPS)
    assert_same_seeds(tmp_path, alone)
    together = [read_run(f / "out" / "runs" / name(0))["together"] for f in (tmp_path, alone)]
    assert together == [SEEDS, 1]


@pytest.mark.parametrize(
    ("moment", "count"),
    [("step", 3 * STEPS + 40), ("checkpoint.pt", 11), ("run.json", 5), ("model.bnn", 3)],
    ids=["second-epoch", "while-putting-away", "while-ending", "while-keeping"],
)
def test_a_kill_at_any_moment_changes_no_result(
    child: Child, alone: Path, data_root: Path, tmp_path: Path, moment: str, count: int
) -> None:
    more = ["--together", "3", "--checkpoint-seconds", "0"]
    arguments = words(tmp_path, data_root, *more, **PRESET)
    code, output = child(run_cli_and_die, arguments, moment, count, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    code, output = child(run_cli, words(tmp_path, data_root, "--together", "2", **PRESET))
    assert code == 0, output
    assert_same_seeds(tmp_path, alone)


def test_pieces_cut_anywhere_reach_the_end_together(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses, taken = [], []
    while not statuses or statuses[-1] == GO_ON:
        with monkeypatch.context() as patch:

            def stop(seed: int, steps: int) -> None:
                if steps == 80:
                    signal.raise_signal(signal.SIGALRM)

            order = turns(patch, stop)
            statuses.append(run_seeds(tmp_path, data_root, Clock(60)))
        taken += order
        assert len(statuses) < 20, "every piece gains something"
    assert statuses == [GO_ON] * (ALL // 80) + [0]
    assert sorted(taken) == sorted([0, 1, 2] * (2 * STEPS)), "no step is taken twice"
    assert_same_seeds(tmp_path, alone)


def test_one_that_is_further_is_kept_before_the_others_end(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "LAST_ROUNDS", 5)
    with monkeypatch.context() as patch:

        def stop(seed: int, steps: int) -> None:
            if steps == 3 * STEPS:  # one done, one in its second epoch, one not begun
                signal.raise_signal(signal.SIGTERM)

        turns(patch, stop)
        assert run_seeds(tmp_path, data_root, most=1) == 128 + signal.SIGTERM
    kept, steps_with_it = tmp_path / "out" / "runs" / name(1) / "model.bnn", []

    def note(seed: int, steps: int) -> None:
        if kept.exists():
            steps_with_it.append(steps)

    order = turns(monkeypatch, note)
    assert run_seeds(tmp_path, data_root) == 0
    assert order == [1, 2] * STEPS + [2] * STEPS
    assert STEPS - 10 < len(steps_with_it) < STEPS, "the last steps, but for a few rounds"
    assert_same_seeds(tmp_path, alone)


def test_where_none_would_end_in_time_one_goes_on_alone(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    left = Group.left

    def told(self: Group, run: str, seconds: float, epochs: int, own: float) -> float | None:
        return left(self, run, seconds, epochs, own=20.0 if run == name(1) else 30.0)

    monkeypatch.setattr(group, "SURE_EPOCHS", 1)
    monkeypatch.setattr(training, "START_SECONDS", 0.0)
    monkeypatch.setattr(Group, "left", told)
    monkeypatch.setattr(Clock, "until_alarm", lambda clock: 15.0)
    order = turns(monkeypatch, lambda seed, steps: None)
    assert run_seeds(tmp_path, data_root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert order == [0, 1, 2] * (STEPS + 2) + [1] * (STEPS - 2) + [0, 2] * (STEPS - 2)
    chosen = f"[2/3] {name(1)} goes on alone: in turns none would end in time"
    assert [line for line in lines if "alone" in line] == [chosen]
    assert_same_seeds(tmp_path, alone)


ERRORS = {
    "foreseen": (HarnessError("no room left"), "no room left"),
    "of a GPU": (
        RuntimeError("CUDA error: invalid\nCompile with"),
        "RuntimeError: CUDA error: invalid Compile with",
    ),
}


@pytest.mark.parametrize(("error", "line"), ERRORS.values(), ids=ERRORS)
def test_an_error_of_one_leaves_the_others_to_go_on(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], error: Exception, line: str,
) -> None:  # fmt: skip
    def broken(seed: int, steps: int) -> None:
        if seed == 1 and steps >= 50:
            raise error

    with monkeypatch.context() as patch:
        turns(patch, broken)
        assert run_seeds(tmp_path, data_root) == FAILED
    output = capsys.readouterr().out
    assert f"[1/3] {name(0)} and 2 more, now one by one: {line}\n" in output
    assert f"[2/3] {name(1)} error: {line}\n" in output
    assert f"[3/3] {name(2)} goes on in epoch 1 of 2" in output
    assert "2 of 3 runs done" in output
    assert run_seeds(tmp_path, data_root) == 0
    assert_same_seeds(tmp_path, alone)


def test_seeds_that_do_not_fit_together_train_one_by_one(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(seed: int, steps: int) -> None:
        if steps == SEEDS:
            raise torch.OutOfMemoryError("CUDA out of memory")

    order = turns(monkeypatch, full)
    assert run_seeds(tmp_path, data_root) == 0
    assert len(order) == ALL + 1, "one step was not taken, and none taken twice"
    assert_same_seeds(tmp_path, alone)
