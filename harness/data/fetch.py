"""Downloads the publishers' files: several mirrors, retries, resumed transfers, checked by md5."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.dataset import load_dataset
from harness.data.digests import CIFAR_ARCHIVE_MD5, OFFICIAL
from harness.data.names import DATASETS
from harness.data.sources import CIFAR_ARCHIVE
from harness.data.transfer import Transfer, TransferError
from harness.errors import HarnessError

ATTEMPTS = 3  # a mirror
_WAIT_SECONDS = 1.0  # before the second attempt; doubled before each further one


@dataclass(frozen=True)
class Offer:
    """The files of a dataset (name -> md5 of the file) and the folders (URLs) that hold them."""

    files: dict[str, str]
    mirrors: tuple[str, ...]


OFFERS = {
    "mnist": Offer(
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
    ),
    "cifar10": Offer(
        {CIFAR_ARCHIVE: CIFAR_ARCHIVE_MD5},
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
        ),
    ),
    "svhn": Offer(
        OFFICIAL["svhn"],
        (
            "http://ufldl.stanford.edu/housenumbers/",
            "https://ufldl.stanford.edu/housenumbers/",
        ),
    ),
}


def fetch(
    dataset: str,
    root: Path | str,
    mirrors: Sequence[str] = (),
    extra: bool = True,
    wait_seconds: float = _WAIT_SECONDS,
) -> Path:
    """Download a dataset into ``<root>/<dataset>``, verify its content, and return that folder.

    Files already there and intact are kept; an interrupted transfer goes on where it stopped.

    Args:
        dataset: ``mnist``, ``cifar10`` or ``svhn``.
        root: the data folder.
        mirrors: URLs of folders to take the files from instead of the known ones, in this order.
        extra: for SVHN, also the 1.3 GB of extra training images.
        wait_seconds: pause before the second attempt at a mirror, doubled for each further one.

    Raises:
        HarnessError: an unknown dataset; a mirror that is no http(s) URL; a folder that holds a
            stand-in; no mirror that gives a file (with each one's reason).
    """
    if dataset not in OFFERS:
        raise HarnessError(f"unknown dataset {dataset!r}; allowed: {', '.join(DATASETS)}")
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise HarnessError(f"mirror {mirror!r}: expected a URL that begins with http(s)://")
    root, offer = Path(root), OFFERS[dataset]
    folder = root / dataset
    files = [name for name in offer.files if extra or not name.startswith("extra")]
    if _is_complete(dataset, root, extra):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(f"cannot write {folder}: {error.strerror or error}") from error
    for name in files:
        _fetch_file(folder / name, offer.files[name], mirrors or offer.mirrors, wait_seconds)
    load_dataset(dataset, root)
    return folder


def _is_complete(dataset: str, root: Path, extra: bool) -> bool:
    try:
        found = load_dataset(dataset, root)
    except HarnessError:
        return False
    if found.source == "standin":
        raise HarnessError(
            f"{root / dataset} holds a stand-in; expected an empty place or official files; "
            "give another --out or remove it"
        )
    return not extra or found.variant == "full"


def _fetch_file(target: Path, md5: str, mirrors: Sequence[str], wait_seconds: float) -> None:
    transfer = Transfer(target, md5)
    try:
        reasons = None if transfer.is_there() else _try_all(transfer, target, mirrors, wait_seconds)
    except OSError as error:
        raise HarnessError(f"cannot write {target}: {error.strerror or error}") from error
    if reasons is None:
        return
    tried = "; ".join(dict.fromkeys(reasons))
    raise HarnessError(
        f"cannot download {target.name} (md5 {md5}): {tried}; check the network and run the same "
        f"command again (what came is kept), or give --mirror URL, or put the file at {target} "
        "yourself"
    )


def _try_all(
    transfer: Transfer, target: Path, mirrors: Sequence[str], wait_seconds: float
) -> list[str] | None:
    """Return why no mirror gave the file, None once one did."""
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{target.name}"
        for attempt in range(ATTEMPTS):
            try:
                transfer(url)
                return None
            except TransferError as error:
                reasons.append(f"{url}: {error}")
                if not error.again:
                    break
            time.sleep(wait_seconds * 2**attempt)
    return reasons
