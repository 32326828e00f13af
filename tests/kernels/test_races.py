"""A GPU's training steps have no race between their streams, and their graph nothing stale.

Whole runs of the real networks by the trainer, their launches by Triton's own path: see
``fake_streams``. Each check is shown to find what it is for.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from harness.nn import tf32
from harness.nn.planned import PlannedOptimizer
from harness.train import steps, together
from harness.train.inputs import Resident
from tests.kernels import fake_driver, fake_streams, watched_runs
from tests.kernels.fake_streams import Recorder
from tests.kernels.watched_driver import WatchedDriver
from tests.kernels.watched_runs import (
    BATCH,
    CASES,
    FAST,
    SHAPES,
    beside,
    method_of,
    recording,
    stale,
    train,
    trainer_of,
)

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedDriver]:
    with MonkeyPatch.context() as patch:
        yield watched_runs.install(patch, str(tmp_path_factory.mktemp("triton")))


@pytest.fixture
def recorder(driver: WatchedDriver) -> Iterator[Recorder]:
    with recording(driver) as recorder:
        yield recorder


@pytest.mark.parametrize("case", CASES)
def test_a_run_has_no_race_and_its_graph_nothing_stale(
    case: str, recorder: Recorder, tmp_path: Path
) -> None:
    trainer = trainer_of(method_of(recorder, **CASES[case]), tmp_path)
    train([trainer])
    assert not recorder.faults
    assert not stale(recorder, trainer)


@pytest.mark.parametrize("case", ["mlp fast", "mlp shift exact", "convnet fast"])
def test_runs_that_take_turns_do_not_meet(case: str, recorder: Recorder, tmp_path: Path) -> None:
    methods = [method_of(recorder, seed=seed, **CASES[case]) for seed in (0, 3)]
    checkpoints = (0, 1e9)  # after each step, and none
    trainers = [
        trainer_of(method, tmp_path, seconds)
        for method, seconds in zip(methods, checkpoints, strict=True)
    ]
    train(trainers)
    assert not recorder.faults
    assert not [found for trainer in trainers for found in stale(recorder, trainer)]


@pytest.mark.parametrize("case", ["mlp fast", "convnet fast"])
def test_no_wait_can_be_left_out_unnoticed(
    case: str, driver: WatchedDriver, tmp_path: Path
) -> None:
    def run(dropped: frozenset[str] = frozenset()) -> Recorder:
        with recording(driver, dropped) as recorder:
            options = {**CASES[case], "epochs": 1}
            methods = [method_of(recorder, seed=seed, **options) for seed in (0, 3)]
            train([trainer_of(method, tmp_path) for method in methods])
        return recorder

    whole = run()
    assert not whole.faults
    names = [Path(site.split(":")[0]).name for site in whole.sites]
    assert sorted(names) == ["planned.py", "planned.py", "steps.py", "steps.py", "together.py"]
    for site in whole.sites:
        assert any("without a wait between" in fault for fault in run(frozenset({site})).faults)


def on_another_stream(loss: Tensor, after: bool) -> None:
    other = torch.cuda.Stream()
    if after:
        other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        loss + 1


FORBIDDEN: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "item": (lambda loss: loss.item(), "the host waits for _local_scalar_dense within a capture"),
    "truth": (lambda loss: bool(loss > 0), "the host waits for _local_scalar_dense"),
    "nonzero": (lambda loss: loss.nonzero(), "the host waits for nonzero within a capture"),
    "mask": (lambda loss: loss[None][loss[None] > 0], "the host waits for index within a capture"),
    "to the host": (lambda loss: loss.cpu(), "the host waits for cpu within a capture"),
    "from the host": (lambda loss: torch.tensor(1.0), "a copy from the host within a capture"),
    "other draws": (
        lambda loss: torch.rand(3, generator=torch.Generator()),
        "rand draws from a generator that is not registered",
    ),
    "other work": (
        lambda loss: torch.cuda.current_stream().wait_stream(torch.cuda.Stream()),
        "waits for stream .*, which is not captured",
    ),
    "not forked": (lambda loss: on_another_stream(loss, False), "goes to stream .*, which is not"),
    "not joined": (lambda loss: on_another_stream(loss, True), "is not joined at the end of the"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_forbids_is_found(
    what: str, recorder: Recorder, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    work, expected = FORBIDDEN[what]
    beside(monkeypatch, lambda method, loss: work(loss))
    train([trainer_of(method_of(recorder, epochs=1, **FAST), tmp_path)])
    assert any(re.search(expected, fault) for fault in recorder.faults), recorder.faults


def test_a_rate_that_the_graph_holds_is_stale(
    recorder: Recorder, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    beside(monkeypatch, lambda method, loss: loss * method.optimizer.param_groups[0]["lr"])
    trainer = trainer_of(method_of(recorder, **FAST), tmp_path)
    train([trainer])
    found = stale(recorder, trainer)
    assert len(found) == 3, "two steps of a graph and one alone"
    assert all("captured ('mul'" in difference for difference in found)


def test_memory_that_moves_after_the_capture_is_stale(recorder: Recorder, tmp_path: Path) -> None:
    method = method_of(recorder, **FAST)
    trainer = trainer_of(method, tmp_path)
    train([trainer])
    kept = method.optimizer._plan
    method.optimizer._plan = kept.clone()
    trainer._steps.step()
    assert not recorder.faults
    assert any("captured ('_update'" in found for found in stale(recorder, trainer))
    del kept
    trainer._steps.step()
    (fault,) = recorder.faults
    assert "a replay touches memory that was freed" in fault


class Forgetful(dict[int, Any]):
    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, None)


def test_memory_freed_while_another_stream_uses_it_is_found(
    recorder: Recorder, tmp_path: Path
) -> None:
    method = method_of(recorder, **FAST)
    method.optimizer._early = Forgetful()
    train([trainer_of(method, tmp_path)])
    assert any("gets the freed memory" in f and "_product_update" in f for f in recorder.faults)


def test_runs_that_share_memory_are_found(recorder: Recorder, tmp_path: Path) -> None:
    trainers = [trainer_of(method_of(recorder, seed=s, **FAST), tmp_path) for s in (0, 3)]
    trainers[1]._steps._wrong = trainers[0]._steps._wrong
    train(trainers)
    assert any(re.match("a replay on .* what a replay on", fault) for fault in recorder.faults)


def test_a_run_captures_its_graphs_on_one_stream(recorder: Recorder, tmp_path: Path) -> None:
    recorder.pool[steps.PRIORITY] = 2
    train([trainer_of(method_of(recorder, seed=s, **FAST), tmp_path) for s in (0, 3)])
    assert not recorder.faults


def test_runs_captured_on_one_stream_share_scratch_memory(
    recorder: Recorder, tmp_path: Path
) -> None:
    """Why there is a most of runs that train together."""
    assert fake_streams.POOL == together.MOST_RUNS
    recorder.pool[steps.PRIORITY] = 1
    train([trainer_of(method_of(recorder, seed=s, **FAST), tmp_path) for s in (0, 3)])
    assert any(re.match("a replay on .* what a replay on", fault) for fault in recorder.faults)


def test_a_forward_pass_that_is_kept_is_found(recorder: Recorder, tmp_path: Path) -> None:
    method = method_of(recorder, epochs=1, **FAST)
    trainer = trainer_of(method, tmp_path)
    method.start_epoch(0, True)
    kept = method.network(trainer.splits["train"].batch(torch.arange(BATCH))[0])
    train([trainer])
    assert "an earlier pass gathers the gradient of blocks.0.norm.weight" in recorder.faults
    del kept


class Unrecorded(Recorder):
    """Streams, and nothing of what goes to them."""

    def operation(self, *what: Any) -> None: ...


class Devices(TorchDispatchMode):
    """Takes down on which devices the tensors of all operations lie."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        self.found |= {tensor.device.type for tensor in tensors}
        return result


def devices_of_a_step(driver: WatchedDriver, patch: MonkeyPatch, case: str) -> set[str]:
    """Return where the tensors of a step lie whose network is on the device meta.

    No value can be read off that device, and what comes from the host is on the CPU.
    """
    recorder = driver.recorder = Unrecorded()
    fake_streams.install(patch, recorder)
    fake_driver.operands_on(patch, "meta")
    patch.setattr(tf32, "integer_conv3x3", tf32._library)  # which the first call looks at
    patch.setattr(PlannedOptimizer, "steps_done", 0)  # read back once an epoch
    method = method_of(recorder, device="meta", **CASES[case])
    method.start_epoch(0, True)
    method.plan(1)
    shape = SHAPES[method.recipe.dataset]
    held = Resident(
        torch.zeros(BATCH, *shape, dtype=torch.uint8, device="meta"),
        torch.zeros(BATCH, dtype=torch.long, device="meta"),
    )
    chosen = torch.zeros(BATCH, dtype=torch.long, device="meta")
    with Devices() as seen:
        method.learn(*held.batch(chosen))
    return seen.found


@pytest.mark.parametrize("case", CASES)
def test_a_step_touches_no_memory_of_the_host(
    case: str, driver: WatchedDriver, monkeypatch: MonkeyPatch
) -> None:
    assert devices_of_a_step(driver, monkeypatch, case) == {"meta"}


def test_memory_of_the_host_is_found(driver: WatchedDriver, monkeypatch: MonkeyPatch) -> None:
    beside(monkeypatch, lambda method, loss: loss + torch.ones(()))
    assert devices_of_a_step(driver, monkeypatch, "mlp fast") == {"cpu", "meta"}
    beside(monkeypatch, lambda method, loss: loss.to("cpu"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        devices_of_a_step(driver, monkeypatch, "mlp fast")
