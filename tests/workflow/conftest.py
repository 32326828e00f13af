"""Snakemake in a folder of its own, and one workflow that ran to its end."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from workflow_helpers import Snakemake, command, environment, small_preset, write_preset


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    """Return a function that runs the workflow: ``snakemake(folder, preset, *arguments)``."""

    def run(
        folder: Path, preset: Path | str, *arguments: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(folder, preset, *arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, snakemake: Snakemake) -> Path:
    """Return the folder of a workflow that ran to its end, its preset ``small`` beside it."""
    folder = tmp_path_factory.mktemp("workflow")
    preset = write_preset(folder, small_preset("small", epochs=3))
    found = snakemake(folder, preset)
    assert found.returncode == 0, found.stdout
    return folder
