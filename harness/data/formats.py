"""The publishers' formats, parsed from bytes: MNIST IDX, CIFAR-10 binary, SVHN ``.mat``.

Every parser checks lengths and values before it believes them, and names the file in its errors.
Nothing here opens a pickle.
"""

import gzip
import math
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data import matfile
from harness.errors import HarnessError

CLASSES = 10
CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes
_IDX_UINT8 = 0x08

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Images and their classes.

    ``pixels``: uint8 [n, channels, height, width], C-contiguous; ``labels``: int64 [n], 0 to 9.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def read_file(path: Path) -> bytes:
    """Return a file's bytes, gunzipped if its name ends in ``.gz``.

    Raises:
        HarnessError: the file is missing, unreadable, or its gzip stream is truncated or corrupt.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise HarnessError(
            f"{path}: expected a whole gzip stream, found {len(data)} bytes that do not "
            f"decompress ({error})"
        ) from error
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error


def parse_idx(data: bytes, dimensions: int, name: str) -> Pixels:
    """Return the uint8 array of an IDX file: magic ``0 0 8 ndim``, big-endian sizes, then values.

    Args:
        data: the uncompressed bytes of the file.
        dimensions: how many dimensions it must have (labels 1, images 3).
        name: the file, for errors.

    Raises:
        HarnessError: the magic number, the number of dimensions or the length is wrong.
    """
    expected = bytes([0, 0, _IDX_UINT8, dimensions])
    if data[:4] != expected:
        raise HarnessError(
            f"{name}: expected an IDX file that begins with {expected.hex(' ')} (uint8, "
            f"{dimensions} dimensions), found {data[:4].hex(' ') or 'an empty file'}"
        )
    header = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(data[4:header].ljust(header - 4), ">u4"))
    wanted = header + math.prod(shape)
    if len(data) != wanted:
        raise HarnessError(
            f"{name}: its IDX header promises {wanted:,} bytes (shape {shape}), "
            f"found {len(data):,} bytes"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def format_idx(array: Pixels) -> bytes:
    """Return the IDX file of a uint8 array of any shape (the inverse of :func:`parse_idx`)."""
    magic = bytes([0, 0, _IDX_UINT8, array.ndim])
    return magic + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def parse_cifar_records(data: bytes, name: str) -> Pixels:
    """Return uint8 [n, 3073] records (label byte, then 3 x 32 x 32 pixels, channel first).

    Raises:
        HarnessError: the length is no multiple of 3,073 bytes, or a label exceeds 9.
    """
    if not data or len(data) % CIFAR_RECORD_BYTES:
        raise HarnessError(
            f"{name}: expected whole records of {CIFAR_RECORD_BYTES:,} bytes, found {len(data):,} "
            f"bytes ({len(data) / CIFAR_RECORD_BYTES:.3f} records)"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD_BYTES)
    check_labels(records[:, 0], name)
    return records


def read_tar_members(archive: Path, members: list[str]) -> dict[str, bytes]:
    """Return the named members of a ``.tar.gz``, read in memory: nothing is extracted.

    Raises:
        HarnessError: the archive is unreadable, truncated, or lacks one of the members.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                wanted = member.isfile() and member.name in members
                handle = tar.extractfile(member) if wanted else None
                if handle is not None:
                    found[member.name] = handle.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise HarnessError(f"{archive}: expected a whole tar.gz archive ({error})") from error
    missing = [member for member in members if member not in found]
    if missing:
        raise HarnessError(f"{archive}: expected a member {missing[0]}, found {sorted(found)}")
    return found


def svhn_count(path: Path) -> int:
    """Return the number of images of a ``*_32x32.mat`` file, from its header.

    Raises:
        HarnessError: the file is missing, not a readable MATLAB 5 file, or of other shapes.
    """
    return matfile.image_count(path)


def read_svhn(path: Path, into: Pixels | None = None) -> Images:
    """Return the images of a ``*_32x32.mat`` file: X uint8 [32, 32, 3, n], y [n, 1] in 1 to 10.

    The publisher's label 10 stands for the digit 0 and becomes 0 here. ``into``, uint8
    [n, 3, 32, 32], takes the pixels where it is given: 531,131 images are 1.6 GB.

    Raises:
        HarnessError: the file is missing, not a readable MATLAB 5 file, or of other shapes.
    """
    from scipy.io import loadmat

    count = matfile.image_count(path)
    pixels = np.empty((count, 3, 32, 32), np.uint8) if into is None else into
    matfile.read_images(path, pixels)
    try:
        y = np.asarray(loadmat(path, variable_names=["y"]).get("y", np.empty(0)))
    except Exception as error:  # scipy raises whatever its parser trips over
        raise HarnessError(f"{path}: expected a whole MATLAB 5 file ({error})") from error
    if y.size != count:
        raise HarnessError(
            f"{path}: expected X uint8 [32, 32, 3, n] and y [n, 1], "
            f"found X uint8 [32, 32, 3, {count}] and y {list(y.shape)}"
        )
    labels = y.reshape(-1).astype(np.int64)
    labels[labels == CLASSES] = 0
    check_labels(labels, str(path))
    return Images(pixels, labels)


def check_labels(labels: npt.NDArray[np.integer[Any]], name: str) -> None:
    """Refuse labels outside 0 to 9, naming the file ``name`` and the first one."""
    bad = labels[(labels < 0) | (labels >= CLASSES)]
    if bad.size:
        raise HarnessError(f"{name}: expected labels 0 to {CLASSES - 1}, found {bad[0]}")
