"""The images of an SVHN ``.mat`` file, streamed: SciPy would hold the whole array beside ours.

MATLAB 5: a header of 128 bytes, then elements of a tag (type, bytes) and data, each perhaps
deflated. A matrix is itself a sequence of elements: flags, dimensions, name, values.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from harness.errors import HarnessError

HEADER_BYTES, ALIGNMENT, CHUNK = 128, 8, 1 << 20
_INT32, _UINT8, _MATRIX, _DEFLATED = 5, 2, 14, 15
_DTYPES = {6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"}

Read = Callable[[int], bytes]


def image_count(path: Path) -> int:
    """Return n of X uint8 [32, 32, 3, n].

    Raises:
        HarnessError: no readable MATLAB 5 file, or X is of another shape or type.
    """
    with _values(path) as (_, shape):
        return shape[3]


def read_images(path: Path, into: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    """Read X into ``into``, uint8 [n, 3, 32, 32], with some megabytes beside it.

    Raises:
        HarnessError: no readable MATLAB 5 file, X of another shape or type, or a truncated one.
    """
    with _values(path) as (read, shape):
        size = math.prod(shape[:3])
        step = max(CHUNK // size, 1)
        for first in range(0, shape[3], step):
            part = into[first : first + step]
            # MATLAB's first index runs fastest: a file's image is [channel][column][row].
            block = np.frombuffer(read(len(part) * size), np.uint8)
            part[...] = block.reshape(-1, *shape[2::-1]).swapaxes(2, 3)


@contextmanager
def _values(path: Path) -> Iterator[tuple[Read, tuple[int, ...]]]:
    """Yield a reader of X's values, and X's shape."""
    try:
        with open(path, "rb") as handle:
            header = handle.read(HEADER_BYTES)
            if header[124:] != b"\x00\x01IM":
                raise ValueError(f"its header ends with {header[124:]!r}, not version 1 and IM")
            yield _find(handle, "X", path)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, zlib.error, struct.error) as error:
        raise HarnessError(f"{path}: expected a whole MATLAB 5 file ({error})") from error


def _find(handle: BinaryIO, wanted: str, path: Path) -> tuple[Read, tuple[int, ...]]:
    while True:
        kind, size = struct.unpack("<II", _exactly(handle, 8))
        end = handle.tell() + size
        if kind not in (_MATRIX, _DEFLATED):
            raise ValueError(f"an element of type {kind}, expected a matrix")
        read: Read = lambda count: _exactly(handle, count)  # noqa: E731
        if kind == _DEFLATED:
            read = _inflated(handle, size)
            read(8)  # the tag of the matrix inside
        name, shape, dtype = _describe(read)
        if name == wanted:
            if shape[:3] != (32, 32, 3) or len(shape) != 4 or dtype != "uint8":
                raise HarnessError(
                    f"{path}: expected X uint8 [32, 32, 3, n], found X {dtype} {list(shape)}"
                )
            _check_values(read, math.prod(shape))
            return read, shape
        handle.seek(end)


def _describe(read: Read) -> tuple[str, tuple[int, ...], str]:
    flags = struct.unpack("<I", _element(read)[1][:4])[0]
    kind, dimensions = _element(read)
    if kind != _INT32:
        raise ValueError(f"dimensions of type {kind}, expected {_INT32}")
    shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    name = _element(read)[1].decode("latin-1")
    return name, shape, _DTYPES.get(flags & 0xFF, f"class {flags & 0xFF}")


def _element(read: Read) -> tuple[int, bytes]:
    head = read(8)
    kind, size = struct.unpack("<II", head)
    if kind >> 16:  # a small element: up to 4 bytes within the tag
        return kind & 0xFFFF, head[4 : 4 + (kind >> 16)]
    if size > CHUNK:
        raise ValueError(f"{size} bytes of description")
    data = read(size)
    read(-size % ALIGNMENT)
    return kind, data


def _check_values(read: Read, count: int) -> None:
    kind, size = struct.unpack("<II", read(8))
    if kind != _UINT8 or size != count:
        raise ValueError(f"values of type {kind} in {size} bytes, expected {count} of uint8")


def _exactly(handle: BinaryIO, count: int) -> bytes:
    data = handle.read(count)
    if len(data) != count:
        raise ValueError(f"it ends {count - len(data)} bytes early")
    return data


def _inflated(handle: BinaryIO, size: int) -> Read:
    inflater, left = zlib.decompressobj(), size

    def read(count: int) -> bytes:
        nonlocal left
        data = bytearray()
        while len(data) < count:
            source = inflater.unconsumed_tail
            if not source:
                if not left:
                    raise ValueError("a deflated matrix goes on beyond its element")
                source = _exactly(handle, min(left, CHUNK))
                left -= len(source)
            data += inflater.decompress(source, count - len(data))
            if inflater.eof and len(data) < count:
                raise ValueError(f"a deflated matrix ends {count - len(data)} bytes early")
        return bytes(data)

    return read
