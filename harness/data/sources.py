"""Finds a dataset's files under a data folder, reads them and takes their digests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import digests
from harness.data.formats import (
    Images,
    Pixels,
    check_labels,
    parse_cifar_records,
    parse_idx,
    read_file,
    read_svhn,
    read_tar_members,
    svhn_count,
)
from harness.errors import HarnessError

CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR_BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CIFAR_TRAIN_IMAGES = 50_000
MNIST_PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Content:
    """What was read: parts by name (train, test, extra), digests by checked unit."""

    parts: dict[str, Images]
    digests: dict[str, str]
    unit_files: dict[str, Path]  # unit of a digest -> the file or folder to name in an error
    original_order: bool | None  # None: nothing published to tell it by


def mend_hint(dataset: str, root: Path) -> str:
    """Return the commands that put a dataset's files in place, for the end of an error."""
    return (
        f"download it with `bnn data fetch --dataset {dataset} --out {root}` or generate a "
        f"stand-in in an empty folder with `bnn data standin --dataset {dataset} --out FOLDER`"
    )


def read_content(dataset: str, root: Path) -> Content:
    """Read ``<root>/<dataset>`` in the publisher's format.

    Raises:
        HarnessError: an unknown name; a missing, truncated or malformed file.
    """
    readers: dict[str, Callable[[Path], Content]] = {
        "mnist": _read_mnist,
        "cifar10": _read_cifar10,
        "svhn": _read_svhn,
    }
    if dataset not in readers:
        raise HarnessError(f"unknown dataset {dataset!r}; allowed: {', '.join(readers)}")
    folder = root / dataset
    try:
        if not folder.is_dir():
            raise HarnessError(
                f"{folder} does not exist or is no folder; expected {dataset}'s files"
            )
        return readers[dataset](folder)
    except HarnessError as error:
        raise HarnessError(f"{error}; {mend_hint(dataset, root)}") from error


def _read_mnist(folder: Path) -> Content:
    parts, files, found = {}, {}, {}
    for part, prefix in MNIST_PREFIXES.items():
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        arrays = {}
        for unit, dimensions in ((images, 3), (labels, 1)):
            files[unit] = _first_present(folder / f"{unit}.gz", folder / unit)
            data = read_file(files[unit])
            arrays[unit] = parse_idx(data, dimensions, str(files[unit]))
            found[unit] = digests.md5_bytes(data)
        parts[part] = _mnist_images(arrays[images], arrays[labels], str(files[images]))
    return Content(parts, found, files, original_order=True)


def _mnist_images(pixels: Pixels, labels: Pixels, name: str) -> Images:
    if len(pixels) != len(labels) or pixels.shape[1:] != (28, 28):
        raise HarnessError(
            f"{name}: expected one label for each image of 28 x 28 pixels, found {len(labels)} "
            f"labels and images of shape {list(pixels.shape)}"
        )
    check_labels(labels, name)
    return Images(pixels[:, None].copy(), labels.astype(np.int64))  # of read-only bytes


def _read_cifar10(folder: Path) -> Content:
    batches = folder / CIFAR_FOLDER
    found_first = _first_present(folder / CIFAR_ARCHIVE, batches)
    archive = None if found_first == batches else found_first
    parts, found = {}, {}
    read = _archive_reader(archive) if archive else lambda name: read_file(batches / name)
    for part, names in CIFAR_BATCHES.items():
        rows = np.concatenate([parse_cifar_records(read(n), f"{batches / n}") for n in names])
        found[part] = digests.records_digest(rows)
        parts[part] = Images(rows[:, 1:].copy().reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))
    return Content(
        parts,
        found,
        dict.fromkeys(found, archive or batches),
        _original_order(parts, archive),
    )


def _archive_reader(archive: Path) -> Callable[[str], bytes]:
    names = [f"{CIFAR_FOLDER}/{name}" for batch in CIFAR_BATCHES.values() for name in batch]
    members = read_tar_members(archive, names)
    return lambda name: members[f"{CIFAR_FOLDER}/{name}"]


def _original_order(parts: dict[str, Images], archive: Path | None) -> bool | None:
    if len(parts["train"]) < CIFAR_TRAIN_IMAGES:  # a stand-in: pinned in its order
        pinned = digests.CIFAR_STANDIN_ORDER.items()
        return all(digests.images_digest(parts[part]) == digest for part, digest in pinned)
    for part, labels in digests.CIFAR_FIRST_LABELS.items():
        if tuple(parts[part].labels[: len(labels)]) != labels:
            return False
    # Of the batches we know the beginning only; the archive's published md5 settles the rest.
    return True if archive and digests.md5_file(archive) == digests.CIFAR_ARCHIVE_MD5 else None


def _read_svhn(folder: Path) -> Content:
    parts, found, units = {}, {}, {}
    places = _svhn_places(folder)
    for unit in digests.SVHN_BYTES:
        part, path = unit.removesuffix("_32x32.mat"), folder / unit
        if part == "extra" and not path.exists():
            continue
        # Only a file of the published size can be official; others are told by their arrays,
        # because a .mat file of the same arrays differs in bytes (date, compression).
        official_size = path.stat().st_size == digests.SVHN_BYTES[unit]
        digest = digests.md5_file(path) if official_size else None
        parts[part] = read_svhn(path, places.get(part))
        found[unit], units[unit] = digest or digests.images_digest(parts[part]), path
    return Content(parts, found, units, original_order=True)


def _svhn_places(folder: Path) -> dict[str, Pixels]:
    """Return where train and extra go: one after the other in one array, never copied to join."""
    for unit in ("train_32x32.mat", "test_32x32.mat"):
        _first_present(folder / unit)
    if not (folder / "extra_32x32.mat").exists():
        return {}
    of_train, of_extra = (svhn_count(folder / f"{part}_32x32.mat") for part in ("train", "extra"))
    pool = np.empty((of_train + of_extra, 3, 32, 32), np.uint8)
    return {"train": pool[:of_train], "extra": pool[of_train:]}


def _first_present(*candidates: Path) -> Path:
    # What `bnn data fetch` writes comes first, so that fetching mends a corrupt unpacked copy.
    for path in candidates:
        if path.exists():
            return path
    raise HarnessError(f"{' or '.join(map(str, candidates))} does not exist")
