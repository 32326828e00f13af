"""The packed network against the training network, image by image: ``evaluate-<kernel>.json``."""

import logging
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.deploy.export import EXPORT, identity, why_not
from harness.deploy.modelfile import MODEL, how_to_export
from harness.deploy.packed import PackedNetwork
from harness.deploy.trained import TrainedRun
from harness.errors import HarnessError
from harness.files import read_record, sha256_file, write_json
from harness.provenance import provenance
from harness.train.checkpoint import BEST
from kernels import registry
from kernels.base import Kernel

EVALUATION_SCHEMA = 1
_log = logging.getLogger("harness.deploy")
LISTED = 20  # of the images that disagree, in the record
WARM_IMAGES = 64  # on a CPU: a kernel's way with many rows takes as many, at most


def resolve_kernels(names: Sequence[str], device: str = "auto") -> list[Kernel]:
    """Return the kernels to run on one device: ``all`` stands for every one that it has.

    Raises:
        HarnessError: an unknown name or device, or no device that has all the names.
    """
    try:
        place = registry.device_for(names, device)
        return [registry.get(name, place) for name in registry.resolve(names, place)]
    except ValueError as error:
        raise HarnessError(str(error)) from error


def evaluation_name(kernel: Kernel) -> str:
    """Return the name of a kernel's record: ``evaluate-naive.json``, on a GPU with ``-cuda``."""
    place = "" if kernel.device == "cpu" else f"-{kernel.device}"
    return f"evaluate-{kernel.name}{place}.json"


def evaluate_run(
    trained: TrainedRun,
    kernels: Sequence[str],
    model: Path | None = None,
    on_record: Callable[[dict[str, Any]], None] = lambda record: None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Write ``evaluate-<kernel>.json`` beside the model for each kernel, and return the records.

    ``on_record`` gets each as soon as it is written: the slowest kernel may take minutes.
    ``device`` is cpu, cuda, or auto: the first that has all the kernels, a GPU that is there first.

    A run without a packed form gives records of status ``skipped``, a kernel that cannot run here
    ``unavailable``, one that fails ``failed``, each with its reason. Otherwise every test image
    goes through the training network once, and through the packed network with each kernel.

    Raises:
        HarnessError: no model, a damaged one, other data than the run's, an unknown kernel.
    """
    path = model or trained.folder / MODEL
    found = resolve_kernels(kernels, device)
    reason = why_not(trained.run, trained.recipe)
    check = None if reason else _Check(trained, path)
    records = []
    for kernel in found:
        record = {"schema": EVALUATION_SCHEMA, **_record(kernel, reason, check)}
        record |= identity(trained.run)
        record["weights_sha256"] = None if check is None else trained.weights_sha256
        record["provenance"] = provenance()
        write_json(path.with_name(evaluation_name(kernel)), record)
        on_record(record)
        records.append(record)
    return records


def _record(kernel: Kernel, reason: str | None, check: "_Check | None") -> dict[str, Any]:
    which = {"kernel": kernel.name, "device": kernel.device}
    if check is None:
        return {"status": "skipped", "reason": reason, **which}
    why = check.why_not(kernel)
    if why is not None:
        return {"status": "unavailable", "reason": why, **which}
    try:
        return {"status": "done", "reason": None, **which, **check.compare(kernel)}
    except HarnessError:
        raise
    except Exception as error:  # a GPU kernel's compiler and launcher fail in ways of their own
        _log.exception("kernel %s on %s failed", kernel.name, kernel.device)
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        return {"status": "failed", "reason": reason, **which}


class _Check:
    """One run's test images, the training network's predictions, and the packed network."""

    def __init__(self, trained: TrainedRun, model: Path) -> None:
        self.test = trained.dataset.test
        how = how_to_export(model, trained.folder)
        how += " --allow-running" * (trained.run["status"] == "running")
        again = f"export it again: {how}"
        if not model.exists():
            raise HarnessError(f"{model} does not exist; export the run first: {how}")
        _check_model(model, again)
        self.network = PackedNetwork.load(model)
        spec = self.network.spec
        if spec.fingerprint != trained.run["fingerprint"]:
            raise HarnessError(f"{model} comes from another run than {trained.folder}; {again}")
        if spec.weights_sha256 not in ("", trained.weights_sha256):
            raise HarnessError(
                f"{model} holds other weights than {trained.folder / BEST} does now; {again}"
            )
        self.labels = torch.from_numpy(self.test.labels)
        self.expected = trained.scores.argmax(1)

    def why_not(self, kernel: Kernel) -> str | None:
        """Return why ``kernel`` cannot run some layer here, or None."""
        inner, rows = self.network.spec.layers[1:], len(self.labels)
        reasons = (kernel.why_not(m=rows, n=layer.outputs, k=layer.k) for layer in inner)
        return next((reason for reason in reasons if reason is not None), None)

    def compare(self, kernel: Kernel) -> dict[str, Any]:
        """Run ``kernel`` on every test image; the figures on top are the first first layer's.

        Bit planes are packed words: a CPU's kernels on packed words run them beside the integer
        product; the others, which would only repeat that first layer, the integer product alone.
        """
        first, *others = self.network.first_layers
        ways = [first, *others] if kernel.packed and kernel.device == "cpu" else [first]
        figures = {way: self._compare(kernel, way) for way in ways}
        return {
            "first_layer": first,
            "images": len(self.labels),
            "training_network_error_pct": self._error_pct(self.expected),
            **figures[first],
            "first_layers": figures,
        }

    def _compare(self, kernel: Kernel, first_layer: str) -> dict[str, Any]:
        # Compiling is no part of the time: a GPU's kernels are compiled for the number of rows too.
        few = self.network.few(len(self.labels), first_layer)
        warm = WARM_IMAGES if kernel.device == "cpu" else few
        self.network.predict(self.test.pixels[:warm], kernel.name, first_layer, kernel.device)
        began = time.perf_counter()
        scores = self.network.predict(self.test.pixels, kernel.name, first_layer, kernel.device)
        found = scores.argmax(1)
        seconds = time.perf_counter() - began
        differing = (found != self.expected).nonzero()[:, 0].tolist()
        return {
            "agree": len(self.labels) - len(differing),
            "disagreeing": differing[:LISTED],
            "test_error_pct": self._error_pct(found),
            "seconds": round(seconds, 4),
            "images_per_s": round(len(self.labels) / seconds, 1),
        }

    def _error_pct(self, predictions: Tensor) -> float:
        return round(100 * (predictions != self.labels).double().mean().item(), 4)


def _check_model(model: Path, again: str) -> None:
    """Compare the model with the digest that export wrote down, where it did: of the last one."""
    beside = model.with_name(EXPORT)
    if not (model.is_file() and beside.exists()):
        return
    record, found = read_record(beside), sha256_file(model)
    wanted = record.get("model_sha256")
    if record.get("model") == model.name and wanted not in (None, found):
        raise HarnessError(
            f"{model} has SHA-256 {found[:16]}, {beside.name} says {wanted[:16]}: it is damaged or "
            f"was replaced; {again}"
        )
