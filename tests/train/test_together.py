"""Several runs in one process: each has the numbers that it has alone."""

import json
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import SETTINGS, assert_same_results, command, read_run, train_here

from harness.errors import HarnessError
from harness.spec import get_mode, load_recipe
from harness.train import together
from harness.train.loop import Interrupted, Paused
from harness.train.record import RunSpec
from harness.train.run import train_together
from harness.train.steps import EagerSteps

SEEDS = (0, 3)
CPU = torch.device("cpu")


def specs(folder: Path, **changes: Any) -> list[RunSpec]:
    recipe = load_recipe("theano", "mnist", {**SETTINGS, **changes})
    mode = get_mode("bnn-det")
    return [RunSpec(recipe, mode, seed, "test", folder / f"seed{seed}") for seed in SEEDS]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        train_here(folder / f"seed{seed}", data_root, seed=seed)
    return folder


def test_runs_together_are_the_runs_alone(alone: Path, data_root: Path, tmp_path: Path) -> None:
    runs = train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert [run["seed"] for run in runs] == list(SEEDS)
    for seed in SEEDS:
        assert_same_results(tmp_path / f"seed{seed}", alone / f"seed{seed}")


def test_the_command_takes_turns_and_goes_on_after_a_stop(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = EagerSteps.learn, 0

    def stopping(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 31:
            signal.raise_signal(signal.SIGTERM)
        return learn(self, x, labels)

    with monkeypatch.context() as patch:
        patch.setattr(EagerSteps, "learn", stopping)
        with pytest.raises(Interrupted):
            train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert calls == 32, "the run that the stop did not meet takes its step too"
    assert all((tmp_path / f"seed{seed}" / "checkpoint.pt").exists() for seed in SEEDS)
    done = train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert [run["status"] for run in done] == ["done", "done"]
    for seed in SEEDS:
        assert_same_results(tmp_path / f"seed{seed}", alone / f"seed{seed}")


def test_seeds_on_the_command_line(
    alone: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from harness import cli

    words = [*command(tmp_path, data_root), "--seed", "0", "--seed", "3"]
    monkeypatch.setattr("sys.argv", ["bnn", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr()
    assert printed.out.count("best epoch") == 2
    assert "seed 3: epoch 1/3" in printed.err
    for seed in SEEDS:
        assert_same_results(tmp_path / f"seed{seed}", alone / f"seed{seed}")


def test_a_run_that_is_done_is_not_trained_again(
    alone: Path, data_root: Path, tmp_path: Path
) -> None:
    train_here(tmp_path / "seed0", data_root)
    before = (tmp_path / "seed0" / "run.json").read_bytes()
    train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert (tmp_path / "seed0" / "run.json").read_bytes() == before
    assert_same_results(tmp_path / "seed3", alone / "seed3")


def test_one_that_diverges_leaves_the_others(
    alone: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, first = EagerSteps.learn, []

    def broken(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
        first.append(self)
        loss, wrong = learn(self, x, labels)
        return (loss * float("nan") if self is first[0] else loss), wrong

    monkeypatch.setattr(EagerSteps, "learn", broken)
    runs = train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert [run["status"] for run in runs] == ["failed", "done"]
    assert read_run(tmp_path / "seed0")["failure"]["epoch"] == 1
    assert_same_results(tmp_path / "seed3", alone / "seed3")
    assert json.loads((tmp_path / "seed0" / "run.json").read_text())["test_error_pct"] is None


def test_two_runs_in_one_folder_are_refused(data_root: Path, tmp_path: Path) -> None:
    one = specs(tmp_path)[0]
    with pytest.raises(HarnessError, match="runs need folders of their own, found"):
        train_together([one, one], data_root, CPU, 1e9)


def test_more_runs_than_a_gpu_has_streams_are_refused(data_root: Path, tmp_path: Path) -> None:
    many = specs(tmp_path) * 17
    with pytest.raises(HarnessError, match="at most 32 runs train together on a GPU, found 34"):
        train_together(many, data_root, torch.device("cuda"), 1e9)


def test_turns_end_at_different_times() -> None:
    order: list[str] = []

    def run(name: str, steps: int) -> Generator[None, None, str]:
        for step in range(steps):
            order.append(f"{name}{step}")
            yield
        return name

    found = together.take_turns(
        dict(enumerate([run("a", 1), run("b", 3), run("c", 2)])), CPU, lambda but: None
    )
    assert found == {0: "a", 1: "b", 2: "c"}
    assert order == ["a0", "b0", "c0", "b1", "c1", "b2"]


@pytest.mark.parametrize("rounds", [0, 2])
def test_one_that_ends_first_has_the_others_put_away(
    monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(together, "LAST_ROUNDS", rounds)
    asked: list[int | None] = []

    def run(steps: int) -> Generator[None, None, int]:
        for _ in range(steps):
            yield
            if asked:
                raise Paused
        return steps

    runs = {name: run(steps) for name, steps in enumerate((1, 3, 9))}
    found = together.take_turns(runs, CPU, asked.append, until_one_ends=True)
    assert found == ({0: 1, 1: 3} if rounds else {0: 1})


def test_one_goes_on_alone_and_the_others_are_put_away() -> None:
    order: list[int] = []
    paused: set[int] = set()

    def run(name: int) -> Generator[None, None, int]:
        for _ in range(4):
            order.append(name)
            yield
            if name in paused:
                raise Paused
        return name

    def pause(but: int | None) -> None:
        paused.update({0, 1, 2} - {but})

    def alone() -> int | None:
        return 1 if len(order) >= 6 else None

    runs = {name: run(name) for name in range(3)}
    assert together.take_turns(runs, CPU, pause, alone=alone) == {1: 1}
    assert order == [0, 1, 2, 0, 1, 2, 1, 1]


def test_an_error_of_one_puts_the_others_away_first(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = EagerSteps.learn, 0

    def broken(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 21:  # the first run's eleventh step
            raise HarnessError("no room left")
        return learn(self, x, labels)

    monkeypatch.setattr(EagerSteps, "learn", broken)
    with pytest.raises(HarnessError, match="no room left"):
        train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert not (tmp_path / "seed0" / "checkpoint.pt").exists()
    state = torch.load(tmp_path / "seed3" / "checkpoint.pt", weights_only=True)
    assert state["progress"]["step"] == 12, "its step of the same round, and one to stop at"


def test_runs_in_turns_share_the_time(data_root: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    runs = train_together(specs(tmp_path), data_root, CPU, 1e9)
    assert sum(run["train_seconds"] for run in runs) < time.monotonic() - began
    assert [run["together"] for run in runs] == [len(SEEDS)] * len(SEEDS)
