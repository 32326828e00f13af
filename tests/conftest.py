"""Settings of every test process."""

import os
from collections.abc import Iterator

import pytest

# Before torch is imported: two threads on busy cores wait for each other longer than one computes,
# and sums are the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Start each test with one thread, whatever the environment says or a test before it left."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
