"""The GPU kernels, on a GPU or, a file at a time, under Triton's interpreter.

``TRITON_INTERPRET`` must be set before triton is imported, so where there is no GPU the tests here
are left to ``tests/kernels/test_interpreted.py``, which runs each file in a process of its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
HERE = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if HERE else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip a file that is named on the command line all the same, and say how it runs."""
    skip = pytest.mark.skip(reason="no GPU: TRITON_INTERPRET=1 pytest FILE, one file at a time")
    for item in items if not HERE else []:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(skip)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every empty tensor hold sentinels, so that an element left unwritten shows."""
    empty = torch.empty

    def allocate(*size: int, **options: object) -> torch.Tensor:
        return empty(*size, **options).fill_(-77)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "empty", allocate)
    yield
