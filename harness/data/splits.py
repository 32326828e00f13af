"""Train and validation splits: the paper's for official data, in proportion for stand-ins.

- MNIST: the last 10,000 of the 60,000 training images are the validation set.
- CIFAR-10: the last 5,000 of 50,000, in the order of the files (the Torch7 recipe's 10 %).
- SVHN: 400 images per class of train and 200 per class of extra, 6,000 together; the others of
  both train. We take the first of each class in file order: digits cut from one photograph stand
  next to each other, so a contiguous block leaks fewer twins into training than a random draw.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.formats import CLASSES
from harness.errors import HarnessError

Indices = npt.NDArray[np.int64]

# How many images of the end of the training file are held out, as a fraction 1/x.
_LAST = {"mnist": 6, "cifar10": 10}
_SVHN_PER_CLASS = {"official": (400, 200), "standin": (40, 20)}  # of train, of extra


@dataclass(frozen=True)
class Split:
    """Which images train and which validate.

    ``train`` and ``valid`` index the training images followed, for SVHN, by the extra ones.
    """

    rule: str
    train: Indices
    valid: Indices

    @property
    def digest(self) -> str:
        """SHA-256 over the little-endian int64 indices of train, then of valid."""
        digest = hashlib.sha256(f"train {len(self.train)}\n".encode())
        digest.update(self.train.astype("<i8").tobytes())
        digest.update(f"valid {len(self.valid)}\n".encode())
        digest.update(self.valid.astype("<i8").tobytes())
        return digest.hexdigest()


def split_last(count: int, held_out: int) -> Split:
    """Hold out the last ``held_out`` of ``count`` images."""
    indices = np.arange(count, dtype=np.int64)
    cut = count - held_out
    return Split(f"last {held_out:,} of {count:,}", indices[:cut], indices[cut:])


def split_per_class(pools: list[tuple[str, npt.NDArray[np.int64], int]]) -> Split:
    """Hold out the first images of each class of each pool of images.

    Args:
        pools: (name, labels, images per class held out), indexed one after the other.

    Raises:
        HarnessError: a pool has too few images of a class.
    """
    valid, offset = [], 0
    for name, labels, per_class in pools:
        for digit in range(CLASSES):
            members = np.flatnonzero(labels == digit)
            if len(members) < per_class:
                raise HarnessError(
                    f"svhn {name}: the split needs {per_class} images of class {digit}, "
                    f"found {len(members)}"
                )
            valid.append(members[:per_class] + offset)
        offset += len(labels)
    held_out = np.sort(np.concatenate(valid))
    train = np.setdiff1d(np.arange(offset, dtype=np.int64), held_out, assume_unique=True)
    rule = " + ".join(f"first {k} per class of {name}" for name, _, k in pools)
    return Split(rule, train, held_out)


def split(
    dataset: str,
    source: str,
    train_labels: npt.NDArray[np.int64],
    extra_labels: npt.NDArray[np.int64] | None = None,
) -> Split:
    """Return a dataset's split: paper, section 2 of the recipes; stand-ins keep the proportion.

    Without ``extra_labels`` SVHN is split by its training images alone.
    """
    if dataset == "svhn":
        of_train, of_extra = _SVHN_PER_CLASS[source]
        pools = [("train", train_labels, of_train)]
        if extra_labels is not None:
            pools.append(("extra", extra_labels, of_extra))
        return split_per_class(pools)
    return split_last(len(train_labels), len(train_labels) // _LAST[dataset])
