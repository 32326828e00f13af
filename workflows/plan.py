"""A preset as jobs: which runs there are, their folders and their arguments."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.spec import Recipe, as_mapping, load_recipe
from workflows.digest import ROOT

PRESETS = ROOT / "workflows" / "presets"


def preset_file(name: str) -> Path:
    """Return the file of a preset given by name or by path.

    Raises:
        ValueError: no such preset; the message lists the names.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ValueError(f"unknown preset {name!r}; presets: {known}, or the path of a YAML file")
    return path


def load_preset(name: str) -> dict[str, Any]:
    """Return a preset's mapping; the schema is checked where Snakemake is at hand."""
    values = yaml.safe_load(preset_file(name).read_text(encoding="utf-8"))
    return dict(values)


@dataclass(frozen=True)
class Job:
    """One training run of a preset."""

    dataset: str
    recipe: str
    mode: str
    seed: int
    threads: int
    settings: tuple[tuple[str, Any], ...]

    @property
    def folder(self) -> str:
        """Its folder below ``results/<preset>/runs``."""
        return f"{self.dataset}/{self.recipe}-{self.mode}/seed{self.seed}"

    @property
    def is_bnn(self) -> bool:
        """True where there is a packed network to export."""
        return self.mode.startswith("bnn-")

    @property
    def arguments(self) -> str:
        """Return what ``bnn train`` needs to know of the run, quoted for a shell."""
        run = (
            f"--dataset {self.dataset} --recipe {self.recipe} --mode {self.mode} --seed {self.seed}"
        )
        pairs = (f"{key}={json.dumps(value)}" for key, value in self.settings)
        return " ".join([run, *(f"--set {shlex.quote(pair)}" for pair in pairs)])

    def resolved_recipe(self) -> Recipe:
        """Return the recipe with the preset's settings laid over it.

        Raises:
            HarnessError: a setting that the recipe does not know.
        """
        return load_recipe(self.recipe, self.dataset, dict(self.settings))

    @property
    def recipe_digest(self) -> str:
        """Return a digest of the resolved recipe: a changed YAML trains its runs again."""
        text = json.dumps(as_mapping(self.resolved_recipe()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def jobs_of(preset: dict[str, Any]) -> dict[str, Job]:
    """Return the preset's runs by folder.

    Raises:
        ValueError: two entries name the same run.
    """
    jobs: dict[str, Job] = {}
    for entry in preset["runs"]:
        settings = tuple(sorted(entry.get("set", {}).items()))
        for mode in entry["modes"]:
            for seed in entry["seeds"]:
                job = Job(entry["dataset"], entry["recipe"], mode, seed, entry["threads"], settings)
                if job.folder in jobs:
                    raise ValueError(f"preset {preset['name']!r} names the run {job.folder} twice")
                jobs[job.folder] = job
    return jobs


def check_settings(jobs: Iterable[Job]) -> None:
    """Resolve every run's recipe, so that a bad setting is refused before any job starts.

    Raises:
        HarnessError: a setting that the recipe does not know, or a value that it refuses.
    """
    for job in jobs:
        job.resolved_recipe()


def safe_name(name: str) -> str:
    """Return ``name`` where it is fit for a path.

    Raises:
        ValueError: it holds anything but letters, digits, ``_`` and ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not fit for a file name: use letters, digits, '_' and '-'")
    return name
