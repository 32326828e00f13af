"""Generates a stand-in and writes it in its publisher's format, whole or not at all."""

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np

from harness.data.dataset import load_dataset
from harness.data.formats import Images, format_idx
from harness.data.sources import CIFAR_BATCHES, CIFAR_FOLDER, MNIST_PREFIXES
from harness.data.standin.digits import grey_digits, house_numbers
from harness.data.standin.objects import colour_objects
from harness.errors import HarnessError

# Images by part, 10,000 a dataset.
COUNTS = {
    "mnist": {"train": 8000, "test": 2000},
    "cifar10": {"train": 8000, "test": 2000},
    "svhn": {"train": 5000, "test": 2000, "extra": 3000},
}
_HARDNESS = {"train": 1.0, "test": 1.0, "extra": 0.4}


def make_part(dataset: str, part: str) -> Images:
    """Generate one part of a stand-in: the same bytes on every machine, in 1 to 3 seconds."""
    count, name = COUNTS[dataset][part], f"{dataset}/{part}"
    if dataset == "mnist":
        return grey_digits(count, name)
    if dataset == "cifar10":
        return colour_objects(count, name)
    return house_numbers(count, name, _HARDNESS[part])


def write_standin(dataset: str, root: Path | str) -> Path:
    """Write ``<root>/<dataset>`` and return it; an intact stand-in there is left alone.

    The folder is made beside its place and renamed, so that it appears whole.

    Raises:
        HarnessError: an unknown dataset; other files already there; a folder that cannot be
            written.
    """
    root = Path(root)
    if dataset not in COUNTS:
        raise HarnessError(f"unknown dataset {dataset!r}; allowed: {', '.join(COUNTS)}")
    target = root / dataset
    if _is_there(dataset, root):
        return target
    parts = {part: make_part(dataset, part) for part in COUNTS[dataset]}
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{dataset}.") as scratch:
            made = Path(scratch) / dataset
            made.mkdir()
            {"mnist": _write_mnist, "cifar10": _write_cifar10, "svhn": _write_svhn}[dataset](
                made, parts
            )
            os.replace(made, target)
    except OSError as error:
        if not (target.exists() and _is_there(dataset, root)):  # another process may have won
            raise HarnessError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _is_there(dataset: str, root: Path) -> bool:
    target = root / dataset
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        source = load_dataset(dataset, root).source
    except HarnessError as error:
        raise HarnessError(
            f"{target} exists and is no intact stand-in: {error}; remove it or give another --out"
        ) from error
    if source != "standin":
        raise HarnessError(
            f"{target} holds the {source} {dataset}; expected an empty place for the stand-in; "
            "give another --out"
        )
    return True


def _write_mnist(folder: Path, parts: dict[str, Images]) -> None:
    for part, prefix in MNIST_PREFIXES.items():
        images = parts[part]
        for unit, array in (
            (f"{prefix}-images-idx3-ubyte", images.pixels[:, 0]),
            (f"{prefix}-labels-idx1-ubyte", images.labels.astype(np.uint8)),
        ):
            packed = gzip.compress(format_idx(array), compresslevel=1, mtime=0)
            (folder / f"{unit}.gz").write_bytes(packed)


def _write_cifar10(folder: Path, parts: dict[str, Images]) -> None:
    batches = folder / CIFAR_FOLDER
    batches.mkdir()
    for part, names in CIFAR_BATCHES.items():
        images = parts[part]
        labels = images.labels.astype(np.uint8)[:, None]
        records = np.concatenate([labels, images.pixels.reshape(len(images), -1)], axis=1)
        for name, batch in zip(names, np.split(records, len(names)), strict=True):
            (batches / name).write_bytes(batch.tobytes())


def _write_svhn(folder: Path, parts: dict[str, Images]) -> None:
    from scipy.io import savemat

    for part, images in parts.items():
        labels = np.where(images.labels == 0, 10, images.labels).astype(np.uint8)
        content = {"X": images.pixels.transpose(2, 3, 1, 0), "y": labels[:, None]}
        savemat(folder / f"{part}_32x32.mat", content)
