"""The GPU kernels where there is no GPU: each file of tests/triton under Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.torch_version import Version

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests" / "triton").glob("test_*.py"))
LAST_LINES = 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/triton runs on the GPU itself")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_under_the_interpreter(file: Path) -> None:
    triton = pytest.importorskip("triton", reason="not installed: pip install --group gpu")
    if Version(triton.__version__) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
        pytest.skip("the interpreter of triton 3.6 needs an older NumPy: pip install 'numpy<2.4'")
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-p", "no:cacheprovider"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=kept | {"TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
    nothing_but_skips = done.returncode == 5 and "1 skipped" in last
    assert done.returncode == 0 or nothing_but_skips, last
