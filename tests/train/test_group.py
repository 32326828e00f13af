"""Which runs of a preset train in turns, and the time that they need."""

import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from piece_helpers import DET, FLOAT, WILD, small_preset

from harness.preset import jobs_of, load_preset
from harness.run.estimate import Estimate
from harness.run.group import SURE_EPOCHS, Group, rows
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


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the clock says, and in ``closings`` what a group asked for."""
    times = SimpleNamespace(now=100.0, left=math.inf, closings=[])
    monkeypatch.setattr(time, "monotonic", lambda: times.now)
    return times


@pytest.fixture
def group(data_root: Path, tmp_path: Path, times: SimpleNamespace) -> Group:
    """Two runs, whose checkpoints may take 3 and 1 s."""
    setup = make_setup(
        str(small_preset(tmp_path)), data_root, tmp_path / "out", tmp_path / "work", (), CPU
    )
    saving = {DET: 3.0, FLOAT: 1.0}
    return Group(saving, Estimate(setup), [WILD], times.closings.append, lambda: times.left)


def test_the_time_of_a_group_is_that_of_its_slowest(group: Group, times: SimpleNamespace) -> None:
    alone = 2 * 4.0 / 2  # two epochs of 4 s that two runs shared
    assert group.left(DET, 4.0, 1, own=30.0) == pytest.approx(30 + alone)
    assert group.left(FLOAT, 4.0, 1, own=10.0) == pytest.approx(30 + alone)
    times.now += 25
    assert group.left(FLOAT, 4.0, 1, own=9.0) == pytest.approx(9 + alone), "5 s are left of the 30"


def test_a_group_asks_for_the_time_of_its_validations_and_checkpoints(
    group: Group, times: SimpleNamespace
) -> None:
    for name, seconds in ((DET, 3.0), (FLOAT, 2.0), (DET, 1.0)):  # from its turn's begin
        times.now += seconds
        group.closed(name)
        group.step(name, 0.0)
    both = 1.5 * (3.0 + 2.0)  # they may close an epoch in the last round
    assert times.closings == [8.0, 8.0 + 4.5, 8.0 + both, 8.0 + both]
    group.step(DET, 0.2)  # a checkpoint was seen, on a fast disk
    group.closed(FLOAT)
    assert times.closings[-1] == pytest.approx(2 * 1.5 * 0.2 + 2.0 + both)


def after_sure_epochs(group: Group, det: float, float_: float) -> None:
    """Let a group hear that its two runs need so many seconds in turns."""
    for epochs in range(1, SURE_EPOCHS + 1):
        assert group.choose() is None, "too few epochs to tell"
        group.left(DET, 1.0 * epochs, epochs, det)
        group.left(FLOAT, 1.0 * epochs, epochs, float_)


@pytest.mark.parametrize(
    ("left", "chosen"),
    [(math.inf, None), (41.0, None), (39.0, FLOAT), (20.5, FLOAT), (19.5, None)],
    ids=["no-end", "one-ends", "none-ends", "just", "not-even-alone"],
)
def test_one_goes_on_alone_where_none_would_end_in_turns(
    group: Group, times: SimpleNamespace, left: float, chosen: str | None
) -> None:
    times.left = left
    after_sure_epochs(group, 60.0, 40.0)
    assert group.choose() == chosen
    times.left = math.inf
    assert group.choose() == chosen, "the others are put away by then"


def test_the_one_that_goes_on_asks_for_its_own_time_alone(
    group: Group, times: SimpleNamespace
) -> None:
    after_sure_epochs(group, 60.0, 40.0)
    times.now, times.left = times.now + 10, 25.0
    assert group.choose() == FLOAT, "30 s are left of its 40"
    assert times.closings[-1] == 2.0
    times.now += 20  # the other is put away
    group.closed(FLOAT)
    assert times.closings[-1] == 2.0, "no other epoch has to wait for that"
    group.step(FLOAT, 0.0)
    times.now += 2
    group.closed(FLOAT)
    assert times.closings[-1] == 2.0 + 1.5 * 2
