"""Write SVHN's three .mat files of any size in MATLAB 5's format, without holding them.

python make_svhn.py FOLDER TRAIN EXTRA TEST. Real sizes: 73257 531131 26032 (1.9 GB of disk).
"""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np

IMAGE = 32 * 32 * 3


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _head(name: str, shape: tuple[int, ...]) -> bytes:
    values = int(np.prod(shape))
    body = _element(6, struct.pack("<II", 9, 0))
    body += _element(5, struct.pack(f"<{len(shape)}i", *shape))
    body += struct.pack("<I", len(name) << 16 | 1) + name.encode().ljust(4, b"\0")
    body += struct.pack("<II", 2, values)
    return struct.pack("<II", 14, len(body) + values + -values % 8) + body


def images(count: int, seed: int, first: int = 0) -> np.ndarray:
    """Return uint8 [count, 3, 32, 32]: a brightness an image, so that it compresses."""
    rng = np.random.default_rng((seed, first))
    bright = rng.integers(0, 200, (count, 1, 1, 1), dtype=np.uint8)
    texture = rng.integers(0, 56, (1, 3, 32, 32), dtype=np.uint8)
    return bright + texture


def labels(count: int) -> np.ndarray:
    """Return the publisher's labels, 1 to 10 in turn."""
    return np.arange(count) % 10 + 1


def write(path: Path, count: int, seed: int, deflate: bool) -> None:
    step = 4000
    with open(path, "wb") as handle:
        handle.write(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM"))
        begin = handle.tell()
        packer = zlib.compressobj(1)
        emit = packer.compress if deflate else bytes
        if deflate:
            handle.write(bytes(8))
        handle.write(emit(_head("X", (32, 32, 3, count))))
        for first in range(0, count, step):
            part = images(min(step, count - first), seed, first)
            handle.write(emit(part.swapaxes(2, 3).tobytes()))
        handle.write(emit(bytes(-count * IMAGE % 8)))
        if deflate:
            handle.write(packer.flush())
            end = handle.tell()
            handle.seek(begin)
            handle.write(struct.pack("<II", 15, end - begin - 8))
            handle.seek(end)
        digits = labels(count).astype(np.uint8).tobytes()
        handle.write(_head("y", (count, 1)) + digits + bytes(-count % 8))


def make(root: Path, train: int, extra: int, test: int, deflate: bool = True) -> None:
    """Write ``root/svhn``, deflated as the publisher's files are."""
    folder = root / "svhn"
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": train, "extra": extra, "test": test}.items()):
        write(folder / f"{part}_32x32.mat", count, seed, deflate)


if __name__ == "__main__":
    make(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
