"""What a call of ``bnn run`` is about: runs, data, folders and kernels, checked before any run."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from harness.data.dataset import load_dataset
from harness.data.standin import write_standin
from harness.deploy.evaluate import resolve_kernels
from harness.errors import HarnessError
from harness.preset import Job, check_form, check_settings, jobs_of, load_preset
from harness.provenance import machine_name
from harness.spec import get_mode
from harness.train.record import RunSpec, fingerprint
from kernels import registry
from kernels.base import Kernel

RESULTS = Path("results")


@dataclass(frozen=True)
class Setup:
    """The runs of a preset by folder, where they happen, and where what is kept goes.

    ``manifests`` are those of the datasets; ``kernels`` evaluate the packed networks, by device.
    """

    name: str
    jobs: Mapping[str, Job]
    data: Path
    manifests: Mapping[str, Mapping[str, Any]]
    work: Path
    out: Path
    device: torch.device
    kernels: Mapping[str, Sequence[Kernel]]

    def spec(self, name: str) -> RunSpec:
        """Return what decides the numbers of the run in folder ``name``."""
        job = self.jobs[name]
        mode, folder = get_mode(job.mode), self.work_folder(name)
        return RunSpec(job.resolved_recipe(), mode, job.seed, self.name, folder, job.label)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of a run: the same one is the same run."""
        digest = self.manifests[self.jobs[name].dataset]["digest"]
        return fingerprint(self.spec(name), digest, self.device.type)

    def work_folder(self, name: str) -> Path:
        """Return where the run trains."""
        return self.work / "runs" / name

    def out_folder(self, name: str) -> Path:
        """Return where what is kept of the run goes."""
        return self.out / "runs" / name


def make_setup(
    preset: str,
    data: Path | None,
    out: Path | None,
    work: Path | None,
    only: Sequence[str],
    device: torch.device,
) -> Setup:
    """Return a checked setup; generates the stand-ins of a preset that trains on them.

    Raises:
        HarnessError: an unknown preset, setting or kernel, data that are not there or damaged, or a
            folder that cannot be written.
    """
    values, jobs = _read(preset)
    jobs = _chosen(jobs, only)
    check_settings(jobs.values())
    work = work or RESULTS / values["name"]
    out = out or RESULTS / "reference" / machine_name()
    if work.resolve() == out.resolve():
        raise HarnessError(f"--work and --out are both {work}; give two folders")
    for option, folder in (("--work", work), ("--out", out)):
        _check_writable(option, folder)
    root = _data_folder(values, jobs, data)
    datasets = dict.fromkeys(job.dataset for job in jobs.values())
    manifests = {name: load_dataset(name, root).manifest for name in datasets}
    kernels = _kernels(values["kernels"], device)
    return Setup(values["name"], jobs, root, manifests, work, out, device, kernels)


def _read(preset: str) -> tuple[dict[str, Any], dict[str, Job]]:
    try:
        values = load_preset(preset)
        check_form(values, f"--preset {preset}")
        return values, jobs_of(values)
    except ValueError as error:
        raise HarnessError(f"--preset {preset}: {error}") from error


def _chosen(jobs: Mapping[str, Job], only: Sequence[str]) -> dict[str, Job]:
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in jobs):
            listed = "\n  ".join(jobs)
            raise HarnessError(f"--only {pattern!r} fits no run; the preset's runs:\n  {listed}")
    return {
        name: job
        for name, job in jobs.items()
        if not only or any(fnmatchcase(name, pattern) for pattern in only)
    }


def _check_writable(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HarnessError(
            f"{option} {folder} cannot be written: {error.strerror or error}"
        ) from error


def _data_folder(values: Mapping[str, Any], jobs: Mapping[str, Job], data: Path | None) -> Path:
    if values["source"] == "standin":
        root = data or RESULTS / "standin"
        for dataset in dict.fromkeys(job.dataset for job in jobs.values()):
            write_standin(dataset, root)
        return root
    if data is None:
        raise HarnessError(
            f"preset {values['name']!r} trains on the publishers' data: name their folder by "
            "--data FOLDER; `bnn data fetch` downloads them"
        )
    return data


def _kernels(named: Sequence[str], device: torch.device) -> dict[str, list[Kernel]]:
    """Return all kernels of a GPU, and the preset's on the CPU after them."""
    found = {}
    if device.type != "cpu":
        found[device.type] = resolve_kernels(registry.names_on(device.type), device.type)
    return {**found, "cpu": resolve_kernels(named, "cpu")}
