"""The publishers' formats: what is written is read back, and what is broken is named."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import savemat

from harness.data.formats import (
    format_idx,
    parse_cifar_records,
    parse_idx,
    read_file,
    read_svhn,
    read_tar_members,
)
from harness.errors import HarnessError


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)))
def test_idx_round_trip(array: np.ndarray) -> None:
    assert np.array_equal(parse_idx(format_idx(array), array.ndim, "x"), array)


def test_idx_header_is_the_documented_one() -> None:
    data = format_idx(np.zeros((2, 3), np.uint8))
    assert data[:12] == bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "an empty file"),
        (b"<html>404</html>", "3c 68 74 6d"),
        (format_idx(np.zeros((2, 3), np.uint8))[:10], "promises"),
        (format_idx(np.zeros((2, 3), np.uint8))[:-1], "found 17 bytes"),
        (format_idx(np.zeros((2, 3), np.uint8)) + b"x", "found 19 bytes"),
        (format_idx(np.zeros(3, np.uint8)), "00 00 08 01"),
    ],
    ids=["empty", "html", "short-header", "truncated", "too-long", "labels-for-images"],
)
def test_idx_errors_name_file_and_finding(data: bytes, expected: str) -> None:
    with pytest.raises(HarnessError, match="some-file") as caught:
        parse_idx(data, 2, "some-file")
    assert expected in str(caught.value)


@given(st.binary(max_size=64))
def test_idx_never_crashes_on_noise(data: bytes) -> None:
    with pytest.raises(HarnessError):
        parse_idx(b"\1" + data, 3, "noise")


def test_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(HarnessError, match=r"images\.gz: expected a whole gzip stream"):
        read_file(path)


def test_cifar_records_want_whole_records_and_ten_classes() -> None:
    records = np.zeros((3, 3073), np.uint8)
    records[:, 0] = (0, 9, 4)
    assert np.array_equal(parse_cifar_records(records.tobytes(), "b"), records)
    with pytest.raises(HarnessError, match="batch: expected whole records of 3,073 bytes"):
        parse_cifar_records(records.tobytes()[:-1], "batch")
    records[1, 0] = 10
    with pytest.raises(HarnessError, match="batch: expected labels 0 to 9, found 10"):
        parse_cifar_records(records.tobytes(), "batch")


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_tar_members_are_read_in_memory_only(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    _tar(archive, {"../outside": b"bad", "d/one": b"1", "d/two": b"2"})
    assert read_tar_members(archive, ["d/two", "d/one"]) == {"d/one": b"1", "d/two": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
    with pytest.raises(HarnessError, match="expected a member d/three"):
        read_tar_members(archive, ["d/three"])


def test_tar_link_is_not_a_member(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("d/one")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(HarnessError, match="d/one"):
        read_tar_members(archive, ["d/one"])


def test_truncated_tar_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    _tar(archive, {"d/one": np.random.PCG64(0).random_raw(5000).tobytes()})
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(HarnessError, match=r"a\.tar\.gz: expected a whole tar\.gz"):
        read_tar_members(archive, ["d/one"])


def test_svhn_axes_and_label_ten(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    path = tmp_path / "t.mat"
    savemat(path, {"X": x, "y": np.array([[10], [1], [9], [10]], np.uint8)})
    images = read_svhn(path)
    assert images.labels.tolist() == [0, 1, 9, 0]
    assert images.pixels.flags.c_contiguous
    assert images.pixels[2, 1, 30, 5] == x[30, 5, 1, 2]


@pytest.mark.parametrize(
    "content",
    [b"", b"MATLAB?", pickle.dumps([1, 2, 3]), bytes(4000)],
    ids=["empty", "text", "pickle", "zeros"],
)
def test_svhn_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"train_32x32\.mat: expected"):
        read_svhn(path)


def test_svhn_truncated_and_misshapen(tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((3, 1), np.uint8)})
    with pytest.raises(HarnessError, match=r"found X uint8 \[32, 32, 3, 4\] and y \[3, 1\]"):
        read_svhn(path)
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(HarnessError, match="expected a whole MATLAB 5 file"):
        read_svhn(path)
