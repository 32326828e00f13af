"""One dataset, verified and split, ready for training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import digests
from harness.data.formats import CLASSES, Images
from harness.data.sources import Content, read_content
from harness.data.splits import Split, split
from harness.data.verify import identify

MANIFEST_SCHEMA = 1
_MOVED = 4096  # images at once: 13 MB


@dataclass(frozen=True)
class Dataset:
    """A verified dataset.

    Attributes:
        name: ``mnist``, ``cifar10`` or ``svhn``.
        source: ``official`` or ``standin``, told by content.
        variant: ``full``, or ``train-only`` for SVHN without its extra images.
        train, valid, test: the images, split as the paper does (in proportion for a stand-in).
        manifest: what a result must say about its data, as plain JSON values.
    """

    name: str
    source: str
    variant: str
    train: Images
    valid: Images
    test: Images
    manifest: dict[str, Any]


def load_dataset(name: str, root: Path | str) -> Dataset:
    """Read ``<root>/<name>``, check its content by digest, and split it.

    Measured on 2 cores: MNIST 0.3 s, CIFAR-10 1.0 s, nearly all of it reading and hashing.

    Raises:
        HarnessError: an unknown name, a missing or malformed file, or content that is neither
            the publisher's nor the stand-in's; the message says what mends it.
    """
    root = Path(root)
    content = read_content(name, root)
    source = identify(name, content, root)
    train, extra = content.parts["train"], content.parts.get("extra")
    parted = split(name, source, train.labels, extra.labels if extra else None)
    variant = "train-only" if name == "svhn" and extra is None else "full"
    pool = train if extra is None else _joined(train, extra)
    valid = _chosen(pool, parted.valid)
    chosen = _chosen if extra is None else _closed_up
    sets = {"train": chosen(pool, parted.train), "valid": valid, "test": content.parts["test"]}
    manifest = _manifest(name, source, variant, content, parted, sets)
    return Dataset(name, source, variant, **sets, manifest=manifest)


def _manifest(
    name: str, source: str, variant: str, content: Content, parted: Split, sets: dict[str, Images]
) -> dict[str, Any]:
    proportional = " (in proportion to the paper's split)" if source == "standin" else ""
    return {
        "schema": MANIFEST_SCHEMA,
        "dataset": name,
        "source": source,
        "variant": variant,
        "digest": _digest(content),
        "original_order": content.original_order,
        "counts": {part: len(images) for part, images in sets.items()},
        "split": {"rule": parted.rule + proportional, "digest": parted.digest},
        "classes": CLASSES,
        "content": content.digests,
    }


def _digest(content: Content) -> str:
    """Return what tells two data sets apart; where it is known to be another, with the order.

    The content of CIFAR-10's records has one digest in any order, but the split goes by places.
    """
    found = content.digests
    if content.original_order is False:
        found = {**found, "order": digests.images_digest(content.parts["train"])}
    return digests.combined_digest(found)


def _joined(first: Images, second: Images) -> Images:
    """Return both sets as one: a view where they lie one after the other in one array."""
    labels, whole = np.concatenate([first.labels, second.labels]), first.pixels.base
    if whole is not None and whole is second.pixels.base and len(whole) == len(labels):
        return Images(whole, labels)
    return Images(np.concatenate([first.pixels, second.pixels]), labels)


def _closed_up(images: Images, indices: np.ndarray) -> Images:
    """Return ascending ``indices`` of ``images``, moved to the front of the same array.

    A copy of SVHN's 598,388 would be 1.8 GB. ``images`` holds nothing of use afterwards.
    """
    for first in range(0, len(indices), _MOVED):
        part = indices[first : first + _MOVED]
        images.pixels[first : first + len(part)] = images.pixels[part]
    return Images(images.pixels[: len(indices)], images.labels[indices])


def _chosen(images: Images, indices: np.ndarray) -> Images:
    # A run of consecutive images stays a view: 138 MB less for CIFAR-10.
    if len(indices) and indices[-1] - indices[0] == len(indices) - 1:
        part = slice(int(indices[0]), int(indices[-1]) + 1)
        return Images(images.pixels[part], images.labels[part])
    return Images(images.pixels[indices], images.labels[indices])
