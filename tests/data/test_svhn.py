"""The whole way of SVHN, from made files in the publisher's format; its memory at full size."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_svhn import images, make, write
from scipy.io import loadmat, savemat

from harness.data import digests
from harness.data.dataset import Dataset, load_dataset
from harness.data.formats import read_svhn
from harness.errors import HarnessError

FULL = {"train": 73_257, "extra": 531_131, "test": 26_032}
COUNTS = {"train": 4_100, "extra": 2_300, "test": 50}
BOUND = 4e9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("svhn")
    make(root, **COUNTS)
    return root


@pytest.fixture
def loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    for unit in digests.SVHN_BYTES:
        path = root / "svhn" / unit
        monkeypatch.setitem(digests.SVHN_BYTES, unit, path.stat().st_size)
        monkeypatch.setitem(digests.OFFICIAL["svhn"], unit, digests.md5_file(path))
    return load_dataset("svhn", root)


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
def test_scipy_reads_what_we_make_and_we_read_the_same(tmp_path: Path, deflate: bool) -> None:
    path = tmp_path / "train_32x32.mat"
    write(path, 700, 3, deflate)
    content = loadmat(path)
    found = read_svhn(path)
    assert np.array_equal(found.pixels, content["X"].transpose(3, 2, 0, 1))
    assert np.array_equal(found.pixels, images(700, 3))
    assert np.array_equal(found.labels, content["y"].reshape(-1) % 10)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("first", ["X", "y"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_we_read_what_scipy_writes(tmp_path: Path, compress: bool, first: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    content = {"X": x, "y": np.array([[1], [10], [3], [10], [9]], dtype)}
    path = tmp_path / "a.mat"
    savemat(
        path, {k: content[k] for k in (first, *set(content) - {first})}, do_compression=compress
    )
    found = read_svhn(path)
    assert np.array_equal(found.pixels, x.transpose(3, 2, 0, 1))
    assert found.labels.tolist() == [1, 0, 3, 0, 9]


def test_official_files_split_400_and_200_a_class(loaded: Dataset) -> None:
    assert (loaded.source, loaded.variant) == ("official", "full")
    assert len(loaded.valid) == 6000
    assert np.bincount(loaded.valid.labels).tolist() == [600] * 10
    assert len(loaded.train) == COUNTS["train"] + COUNTS["extra"] - 6000
    assert len(loaded.test) == COUNTS["test"]
    assert loaded.test.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert loaded.manifest["split"]["rule"] == (
        "first 400 per class of train + first 200 per class of extra"
    )


def test_every_image_keeps_its_label_and_place(root: Path, loaded: Dataset) -> None:
    parts = [read_svhn(root / "svhn" / f"{part}_32x32.mat") for part in ("train", "extra")]
    pixels = np.concatenate([part.pixels for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    # Labels go round in turn: the first 400 of each class are the first 4,000 images.
    held = np.r_[0:4000, 4100:6100]
    rest = np.setdiff1d(np.arange(len(labels)), held)
    for images_, indices in ((loaded.valid, held), (loaded.train, rest)):
        assert np.array_equal(images_.pixels, pixels[indices])
        assert np.array_equal(images_.labels, labels[indices])


@pytest.mark.parametrize("cut", [50, 130, 200, 5000])
@pytest.mark.parametrize("deflate", [False, True])
def test_truncated_files_are_named(tmp_path: Path, cut: int, deflate: bool) -> None:
    path = tmp_path / "extra_32x32.mat"
    write(path, 40, 3, deflate)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HarnessError, match=r"extra_32x32\.mat: expected a whole MATLAB 5 file"):
        read_svhn(path)


def test_a_deflated_matrix_that_is_longer_than_it_says_is_named(tmp_path: Path) -> None:
    path = tmp_path / "extra_32x32.mat"
    write(path, 40, 3, deflate=True)
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<I", content, 132)
    struct.pack_into("<I", content, 132, size // 2)
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"extra_32x32\.mat: expected a whole MATLAB 5 file"):
        read_svhn(path)


def test_another_shape_or_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"X": np.zeros((32, 32, 1, 4), np.uint8), "y": np.ones((4, 1), np.uint8)})
    with pytest.raises(HarnessError, match=r"found X uint8 \[32, 32, 1, 4\]"):
        read_svhn(path)
    savemat(path, {"X": np.zeros((32, 32, 3, 4)), "y": np.ones((4, 1), np.uint8)})
    with pytest.raises(HarnessError, match=r"found X double \[32, 32, 3, 4\]"):
        read_svhn(path)


def _peak(root: Path) -> dict[str, int]:
    child = Path(__file__).with_name("svhn_child.py")
    done = subprocess.run(
        [sys.executable, str(child), str(root)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_full_size_stays_below_four_gigabytes(tmp_path: Path) -> None:
    """Two sizes give the bytes an image; 604,388 images and the test set follow from them.

    Both train on more than a block of 2,000 images, whose temporaries are the same in both.
    """
    peaks, sizes = [], (9_000, 17_000)
    for size in sizes:
        make(tmp_path / str(size), 4_100, size - 4_100, 100)
        found = _peak(tmp_path / str(size))
        assert found["finite"] and found["source"] == "official"
        peaks.append(found["after"])
    per_image = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    # A page or forty of the allocator's own lie between the two peaks.
    assert 0.95 * 3072 <= per_image < 1.5 * 3072, "more than the bytes of an image are held"
    full = peaks[1] + per_image * (sum(FULL.values()) - sizes[1])
    assert full < BOUND
