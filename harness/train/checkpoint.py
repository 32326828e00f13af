"""Checkpoints that are whole or absent, and weights as plain data."""

import errno
import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from harness.errors import HarnessError
from harness.files import atomic_path

CHECKPOINT = "checkpoint.pt"
BEST = "best.safetensors"
FULL_BYTES = 1 << 20  # free on a disk while what did not fit on it still lies there
_log = logging.getLogger("harness.train")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` of torch or safetensors make ``path``, atomically.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    with atomic_path(path) as temporary:
        try:
            write(temporary)
        except (RuntimeError, SafetensorError) as error:  # how the two report a full disk
            full = shutil.disk_usage(path.parent).free < FULL_BYTES
            why = os.strerror(errno.ENOSPC) if full else error
            raise HarnessError(f"cannot write {path}: {why}") from error


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the resumable state, atomically. It holds tensors, numbers, strings and lists only.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    write_whole(folder / CHECKPOINT, lambda temporary: torch.save(state, temporary))


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
        state = dict(_read(path))
    except Exception as error:  # damage shows as any of a dozen exceptions
        _log.warning("%s cannot be read (%s); starting anew", path, error)
        return None
    if state.get("fingerprint") != fingerprint:
        _log.warning("%s belongs to other settings; starting anew", path)
        return None
    return state


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        HarnessError: the file cannot be written; the last whole one stays.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_whole(path, lambda temporary: save_file(plain, temporary))


def read_weights(path: Path, sha256: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """Return the SHA-256 of a safetensors file and its tensors.

    Both of one moment: training may replace the file. ``sha256`` is its own, where it is known.

    Raises:
        HarnessError: the file is missing or damaged; the message names it and the remedy.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HarnessError(
            f"{path} does not exist; train the run first: bnn train --out {path.parent}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    try:
        if sha256 not in (None, found):
            raise ValueError(f"its SHA-256 is not {sha256}, as run.json says")
        return found, dict(load(content))
    except (SafetensorError, ValueError) as error:
        raise HarnessError(
            f"{path} is damaged ({error}); delete its folder and train again"
        ) from error
