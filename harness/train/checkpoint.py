"""Checkpoints that are whole or absent, and weights as plain data."""

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import HarnessError
from harness.files import atomic_path

CHECKPOINT = "checkpoint.pt"
BEST = "best.safetensors"
_log = logging.getLogger("harness.train")


def _write(path: Path, write: Callable[[Path], None]) -> None:
    try:
        with atomic_path(path) as temporary:
            write(temporary)
    except (RuntimeError, SafetensorError) as error:  # how the two libraries report a full disk
        raise HarnessError(f"cannot write {path}: {error}") from error


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the resumable state, atomically. It holds tensors, numbers, strings and lists only.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    _write(folder / CHECKPOINT, lambda temporary: torch.save(state, temporary))


def remove_leftovers(folder: Path) -> None:
    """Remove half-written checkpoints and weights that a killed process left in ``folder``."""
    for name in (CHECKPOINT, BEST):
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} has a wrong checksum")
    return torch.load(path, map_location="cpu", weights_only=True)


def load_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the state to resume from, or None where there is none for this very run.

    Loaded as data only (no code can run). A checkpoint of other settings is passed over with a
    log line: the run then starts anew.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = _read(path)
    except Exception as error:  # damage shows as any of a dozen exceptions
        _log.warning("%s cannot be read (%s); starting anew", path, error)
        return None
    if state.get("fingerprint") != fingerprint:
        _log.warning("%s belongs to other settings; starting anew", path)
        return None
    return dict(state)


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    _write(path, lambda temporary: save_file(plain, temporary))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from safetensors.

    Raises:
        HarnessError: the file is missing or damaged; the message names it and the remedy.
    """
    if not path.exists():
        raise HarnessError(
            f"{path} does not exist; train the run first: bnn train --out {path.parent}"
        )
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise HarnessError(
            f"{path} is damaged ({error}); delete its folder and train again"
        ) from error
