"""A stand-in, an uninterrupted run to compare with, and children that import torch only once."""

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cli
from harness.data.standin import write_standin

sys.path.insert(0, str(Path(__file__).parent))

CHILD_SECONDS = 120.0
Child = Callable[..., tuple[int, str]]
Bnn = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the stand-in of MNIST."""
    root = tmp_path_factory.mktemp("data")
    write_standin("mnist", root)
    return root


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Return the run folder of a run that nothing disturbed."""
    from train_helpers import train_here

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train_here(folder, data_root)
    torch.set_num_threads(before)
    return folder


@pytest.fixture
def bnn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bnn:
    """Return a function that runs the command line here and gives exit code and error output."""

    def run(arguments: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bnn", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return int(code or 0), capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # Building an optimizer imports torch._dynamo, for seconds: once is enough.
    context.set_forkserver_preload(["harness.cli", "harness.train.run", "torch._dynamo"])
    return context


@pytest.fixture
def child(forkserver: ForkServerContext, tmp_path: Path) -> Child:
    """Return a function that runs a child to its end and gives its exit code and output."""

    def run(target: Callable[..., None], arguments: list[str], *rest: Any) -> tuple[int, str]:
        log = tmp_path / "output.txt"
        log.write_text("")
        process = forkserver.Process(target=target, args=(arguments, str(log), *rest))
        process.start()
        process.join(CHILD_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            pytest.fail(f"the child did not end: {log.read_text()}")
        assert process.exitcode is not None
        return process.exitcode, log.read_text()

    return run
