"""A preset as jobs: which runs there are, their folders and their arguments."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from harness import ablations
from harness.errors import HarnessError
from harness.spec import (
    MODES,
    RECIPES,
    DatasetName,
    Recipe,
    as_mapping,
    from_mapping,
    get_mode,
    load_recipe,
)
from harness.text import one_line

PRESETS = Path(__file__).resolve().parent.parent / "workflows" / "presets"


def preset_file(name: str) -> Path:
    """Return the file of a preset given by name or by path.

    Raises:
        ValueError: no such preset; the message lists the names.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        known = known or "none here, they lie in a checkout's workflows/presets"
        raise ValueError(f"unknown preset {name!r}; presets: {known}, or the path of a YAML file")
    return path


def load_preset(name: str) -> dict[str, Any]:
    """Return a preset's mapping: :func:`check_form` checks it, and Snakemake by its schema.

    Raises:
        ValueError: no such preset, or a file that is no YAML mapping.
    """
    path = preset_file(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping, found {values!r}")
    return values


@dataclass(frozen=True)
class _Entry:
    """An entry of a preset's ``runs``."""

    dataset: DatasetName
    recipe: str
    modes: tuple[str, ...]
    seeds: tuple[int, ...]
    threads: int
    label: str = ""
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ablations:
    """A preset's ``ablations``: groups, and what their runs share."""

    groups: tuple[str, ...]
    seeds: tuple[int, ...]
    threads: int
    mnist: dict[str, Any] = field(default_factory=dict)
    cifar10: dict[str, Any] = field(default_factory=dict)
    svhn: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Form:
    """What a preset is made of, where no schema is at hand."""

    name: str
    source: Literal["standin", "official"]
    kernels: tuple[str, ...]
    bench: dict[str, Any] = field(default_factory=dict)
    runs: tuple[_Entry, ...] = ()
    ablations: _Ablations = _Ablations((), (), 1)


def check_form(values: dict[str, Any], where: str) -> None:
    """Check the keys and types of a preset's mapping, found at ``where``.

    Raises:
        HarnessError: an unknown or missing key, a value that is not allowed, or no run at all.
    """
    found = from_mapping(_Form, values, where)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", found.name):
        raise HarnessError(
            f"{where}.name: {found.name!r} names a folder: use lower-case letters, digits and '-'"
        )
    if not found.runs and "ablations" not in values:
        raise HarnessError(f"{where}: expected runs or ablations, found neither")
    for entry in found.runs:
        if entry.recipe not in RECIPES:
            raise HarnessError(
                f"{where}.runs: recipe {entry.recipe!r} is not one of {', '.join(RECIPES)}"
            )
        _check_counts(entry.seeds, entry.threads, f"{where}.runs")
        if not entry.modes:
            raise HarnessError(f"{where}.runs: expected at least one mode, found none")
    if "ablations" in values:
        _check_counts(found.ablations.seeds, found.ablations.threads, f"{where}.ablations")
        if not found.ablations.groups:
            raise HarnessError(f"{where}.ablations: expected at least one group, found none")


def _check_counts(seeds: tuple[int, ...], threads: int, where: str) -> None:
    if not seeds:
        raise HarnessError(f"{where}: expected at least one seed, found none")
    if min(seeds) < 0 or threads < 1:
        raise HarnessError(f"{where}: seeds are at least 0, threads at least 1")


def check_label(label: str) -> str:
    """Return ``label``; refuse one that does not fit a folder's name.

    Raises:
        HarnessError: it holds anything but lower-case letters, digits and single hyphens.
    """
    if label and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", label):
        raise HarnessError(
            f"label {label!r}: use lower-case letters, digits and single hyphens, as in no-clip"
        )
    return label


def run_name(recipe: str, label: str, mode: str) -> str:
    """Return a run's folder name: ``theano-bnn-det``, with a label ``theano+no-clip-bnn-det``."""
    return f"{recipe}+{label}-{mode}" if label else f"{recipe}-{mode}"


def split_run_name(name: str) -> tuple[str, str, str]:
    """Return (recipe, label, mode) of a folder named by :func:`run_name`.

    The longest name of a mode at the end counts: recipes and labels hold hyphens too.
    """
    ends = [mode for mode in MODES if name.endswith(f"-{mode}")]
    mode = max(ends, key=len, default="")
    variation = name.removesuffix(f"-{mode}")
    recipe, _, label = variation.partition("+")
    return recipe, label, mode


@dataclass(frozen=True)
class Job:
    """One training run of a preset."""

    dataset: str
    recipe: str
    mode: str
    seed: int
    threads: int
    settings: tuple[tuple[str, Any], ...]
    label: str = ""

    @property
    def folder(self) -> str:
        """Its folder below ``results/<preset>/runs``: ``mnist/theano-bnn-det/seed0``.

        A label, which sets a variation of a recipe apart, follows the recipe's name:
        ``mnist/theano+no-clip-bnn-det/seed0``.
        """
        return f"{self.dataset}/{run_name(self.recipe, self.label, self.mode)}/seed{self.seed}"

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
        run += f" --label {self.label}" if self.label else ""
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


def jobs_of(preset: dict[str, Any], groups: Sequence[str] = ()) -> dict[str, Job]:
    """Return the preset's runs by folder: its ``runs``, then the cells of its ``ablations``.

    A run that several ablations share is there once. ``groups`` leaves only those ablations.

    Raises:
        ValueError: two entries name the same run.
        HarnessError: an unknown ablation, or one that the preset does not have.
    """
    jobs: dict[str, Job] = {}
    cells = ablations.entries(preset["ablations"], groups) if "ablations" in preset else []
    if groups and not cells:
        raise HarnessError(f"preset {preset['name']!r} has no ablations, found {', '.join(groups)}")
    own = [] if groups else preset.get("runs", [])
    for i, entry in enumerate([*own, *cells]):
        for job in _jobs_of_entry(entry):
            shared = i >= len(own) and jobs.get(job.folder) == job
            if job.folder in jobs and not shared:
                raise ValueError(f"preset {preset['name']!r} names the run {job.folder} twice")
            jobs[job.folder] = job
    return jobs


def _jobs_of_entry(entry: dict[str, Any]) -> list[Job]:
    settings = tuple(sorted(entry.get("set", {}).items(), key=lambda pair: str(pair[0])))
    label = check_label(entry.get("label", ""))
    recipe, threads = entry["recipe"], entry["threads"]
    return [
        Job(entry["dataset"], recipe, mode, seed, threads, settings, label)
        for mode in entry["modes"]
        for seed in entry["seeds"]
    ]


def check_settings(jobs: Iterable[Job]) -> None:
    """Resolve every run's recipe, so that a bad setting is refused before any job starts.

    Raises:
        HarnessError: a setting that the recipe does not know, or a value that it refuses.
    """
    for job in jobs:
        job.resolved_recipe().check_mode(get_mode(job.mode))
