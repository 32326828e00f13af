"""Preprocessing fitted once a dataset and split: kept in a file beside the data."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from harness.data.dataset import Dataset
from harness.data.preprocess import Preprocessor, fit, from_state
from harness.errors import HarnessError
from harness.files import atomic_path

FOLDER = ".preprocess"
CACHE_VARIABLE = "BNN_CACHE"
# Fitted by less than a look at a file takes.
UNCACHED = ("scale", "global", "bipolar")
VERSION = 1  # to be raised where a fit of the same pixels changes
_KEY = "bnn"
_log = logging.getLogger("harness.data")


def fitted(kind: str, dataset: Dataset, root: Path) -> Preprocessor:
    """Return the preprocessing of ``dataset``'s training split, fitted once.

    The file ``<root>/.preprocess/<dataset>-<kind>-<digest>.safetensors`` (``BNN_CACHE`` names
    another folder) is named by kind, data and split, written whole, and checked by a digest of
    its content when it is read; a damaged one is fitted anew. A folder that cannot be written
    costs the fit of each run, and a line in the log.

    Raises:
        HarnessError: an unknown kind, or pixels that it cannot be fitted on.
    """
    if kind in UNCACHED:
        return fit(kind, dataset.train.pixels)
    folder = Path(os.environ.get(CACHE_VARIABLE) or root / FOLDER)
    name = identity(kind, dataset.manifest)
    path = folder / f"{dataset.name}-{kind}-{name[:16]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # of two runs that start together one fits
            return _load(path, kind, name) or _fit_and_save(path, kind, name, dataset)
    except (OSError, HarnessError) as error:
        _log.warning("%s preprocessing is not kept: %s", kind, error)
        return fit(kind, dataset.train.pixels)


def identity(kind: str, manifest: Mapping[str, Any]) -> str:
    """Return SHA-256 over the kind, the digests of data and split, and the version of the fit."""
    parts = (kind, manifest["digest"], manifest["split"]["digest"], VERSION)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _fit_and_save(path: Path, kind: str, name: str, dataset: Dataset) -> Preprocessor:
    preprocessor = fit(kind, dataset.train.pixels)
    state = {k: np.asarray(v, order="C") for k, v in preprocessor.state().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={_KEY: f"{name} {_content_digest(state)}"})
    return preprocessor


def _load(path: Path, kind: str, name: str) -> Preprocessor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as handle:
            entry = (handle.metadata() or {}).get(_KEY, "")
            state = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        _log.warning("%s cannot be read (%s); fitting anew", path, error)
        return None
    if entry != f"{name} {_content_digest(state)}":
        _log.warning("%s does not hold what its name says; fitting anew", path)
        return None
    return from_state(kind, state)


def _content_digest(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        array = np.asarray(state[key], order="C")
        digest.update(f"{key} {array.dtype} {list(array.shape)}".encode() + array.tobytes())
    return digest.hexdigest()
