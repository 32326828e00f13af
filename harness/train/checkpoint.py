"""Checkpoints that are whole or absent, and weights as plain data."""

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import HarnessError
from harness.files import atomic_path

CHECKPOINT = "checkpoint.pt"
BEST = "best.safetensors"
_log = logging.getLogger("harness.train")


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the resumable state, atomically. It holds tensors, numbers, strings and lists only."""
    with atomic_path(folder / CHECKPOINT) as temporary:
        torch.save(state, temporary)


def load_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the state to resume from, or None where there is none for this very run.

    Loaded as data only (no code can run). A checkpoint of other settings is passed over with a
    log line: the run then starts anew.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        _log.warning("%s cannot be read (%s); starting anew", path, error)
        return None
    if state.get("fingerprint") != fingerprint:
        _log.warning("%s belongs to other settings; starting anew", path)
        return None
    return dict(state)


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)


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
    except (
        Exception
    ) as error:  # the library raises its own exception, a subclass of Exception alone
        raise HarnessError(
            f"{path} is damaged ({error}); delete its folder and train again"
        ) from error
