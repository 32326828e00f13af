"""A preset that takes seconds, and the command line of a workflow in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from workflows.digest import ROOT

SMALL = {"network.hidden": [32, 32], "network.input_dropout": 0.0, "network.hidden_dropout": 0.0}
Snakemake = Callable[..., "subprocess.CompletedProcess[str]"]


def small_preset(name: str, epochs: int, **changes: Any) -> dict[str, Any]:
    """Return a preset of one binary, one real and one diverging run on MNIST's stand-in."""
    run = {"dataset": "mnist", "recipe": "theano", "seeds": [0], "threads": 1}
    settings = {**SMALL, "epochs": epochs}
    wild = {**settings, "schedule.start": 1.0e30, "schedule.end": 1.0e30}
    return {
        "name": name,
        "source": "standin",
        "runs": [
            {**run, "modes": ["bnn-det", "float"], "set": settings},
            {**run, "modes": ["float"], "seeds": [1], "set": wild},
        ],
        "kernels": ["xnor-cpu", "vendor-fp32"],
        "bench": {"cases": ["square-64"], "kernels": ["naive", "xnor-cpu"], "seconds": 0.1},
        **changes,
    }


def command(folder: Path, preset: Path | str, *arguments: str) -> list[str]:
    """Return the command line of a workflow whose results go below ``folder``."""
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--workflow-profile", str(ROOT / "profiles" / "default"), "--cores", "2"),
        *("--directory", str(folder), *arguments),
        *("--config", f"preset={preset}", "track=off"),
    ]


def environment() -> dict[str, str]:
    """Return this environment with this interpreter's commands and these sources in front."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def write_preset(folder: Path, values: dict[str, Any]) -> Path:
    """Write a preset below ``folder`` and return its path."""
    path = folder / f"{values['name']}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
