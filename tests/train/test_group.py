"""Which runs of a preset train in turns, and the time that they need."""

import time
from pathlib import Path

import pytest
import torch
from piece_helpers import DET, FLOAT, WILD, small_preset

from harness.preset import jobs_of, load_preset
from harness.run.estimate import Estimate
from harness.run.group import Group, rows
from harness.run.setup import make_setup

CPU = torch.device("cpu")


def test_neighbours_that_differ_in_their_seed_alone_train_together() -> None:
    first = {"dataset": "mnist", "recipe": "theano", "threads": 1, "set": {"epochs": 2}}
    runs = [
        {**first, "modes": ["bnn-det", "float"], "seeds": [0, 1, 2]},
        {**first, "modes": ["float"], "seeds": [3]},
        {**first, "modes": ["float"], "seeds": [4], "set": {"epochs": 3}},
        {**first, "modes": ["float"], "seeds": [5], "threads": 2, "set": {"epochs": 3}},
        {**first, "modes": ["bnn-det"], "seeds": [6]},
    ]
    jobs = jobs_of({"name": "mine", "runs": runs})

    def seeds(most: int, names: list[str]) -> list[list[int]]:
        return [[jobs[name].seed for name in row] for row in rows(jobs, names, most)]

    assert seeds(4, list(jobs)) == [[0, 1, 2], [0, 1, 2, 3], [4], [5], [6]]
    assert seeds(2, list(jobs)) == [[0, 1], [2], [0, 1], [2, 3], [4], [5], [6]]
    assert seeds(1, list(jobs)) == [[job.seed] for job in jobs.values()]
    without = [name for name, job in jobs.items() if job.seed not in (0, 3)]
    assert seeds(4, without) == [[1, 2], [1, 2], [4], [5], [6]], "what is done is passed over"


def test_mixed_rows_hold_neighbours_of_any_kind() -> None:
    both = {"threads": 1, "modes": ["float", "bnn-det"], "seeds": [0, 1]}
    runs = [
        {**both, "dataset": "mnist", "recipe": "torch7"},
        {**both, "dataset": "cifar10", "recipe": "theano", "modes": ["bnn-det"], "seeds": [0]},
    ]
    jobs = jobs_of({"name": "mine", "runs": runs})
    found = rows(jobs, jobs, 4, mixed=True)
    assert sum(found, []) == list(jobs)
    assert [len(row) for row in found] == [4, 1]
    fast = {**both, "dataset": "mnist", "recipe": "theano", "set": {"precision": "fast"}}
    more = {**both, "dataset": "mnist", "recipe": "torch7-released", "threads": 2}
    jobs = jobs_of({"name": "mine", "runs": [*runs, fast, more]})
    found = rows(jobs, jobs, 9, mixed=True)
    assert [len(row) for row in found] == [5, 4, 4], "the process has one precision, one number"


def test_of_the_gpu_preset_the_first_seeds_come_alone_and_the_others_in_pairs() -> None:
    jobs = jobs_of(load_preset("gpu"))
    found = rows(jobs, jobs, 4)
    assert sum(found, []) == list(jobs)
    assert {tuple(jobs[name].seed for name in row) for row in found} == {(0,), (1, 2)}
    assert [len(row) for row in found] == 7 * [1] + 2 * [2] + 2 * [1] + 3 * [2]


def test_the_time_of_a_group_is_that_of_its_slowest(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, closings = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    setup = make_setup(
        str(small_preset(tmp_path)), data_root, tmp_path / "out", tmp_path / "work", (), CPU
    )
    group = Group([DET, FLOAT], Estimate(setup), [WILD], closings.append)
    for name, seconds in ((DET, 3.0), (FLOAT, 2.0), (DET, 1.0)):  # from its turn's begin
        now[0] += seconds
        group.closed(name)
        group.step()
    assert closings == [3.0, 5.0, 5.0], "both may close an epoch in the last round"
    alone = 2 * 4.0 / 2  # two epochs of 4 s that two runs shared
    assert group.left(DET, 4.0, 1, own=30.0) == pytest.approx(30 + alone)
    assert group.left(FLOAT, 4.0, 1, own=10.0) == pytest.approx(30 + alone)
    now[0] += 25
    assert group.left(FLOAT, 4.0, 1, own=9.0) == pytest.approx(9 + alone), "5 s are left of the 30"
