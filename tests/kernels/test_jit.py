"""Compiled kernels are cached apart for each state of the sources."""

import os
import subprocess
import sys
from pathlib import Path

from kernels.cpu.jit import sources_digest


def test_the_digest_follows_every_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    found = {sources_digest(tmp_path)}
    (tmp_path / "b.py").write_text("y = 2\n")
    found.add(sources_digest(tmp_path))
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    found.add(sources_digest(tmp_path))
    (tmp_path / "notes.txt").write_text("no source")
    found.add(sources_digest(tmp_path))
    assert len(found) == 3


def test_kernels_are_cached_below_the_folder_given(tmp_path: Path) -> None:
    program = "import numpy; from kernels.cpu import steps; x = numpy.ones(8, dtype='f4')\n"
    program += "steps.sign(x, x, 1)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("numba-")
    assert list(folder.rglob("steps*.nbi"))
