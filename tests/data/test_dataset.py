"""Loading: official and stand-in data told apart by content, anything else refused."""

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.data import digests, splits
from harness.data.commands import app
from harness.data.dataset import load_dataset
from harness.data.digests import records_digest
from harness.data.sources import CIFAR_ARCHIVE, CIFAR_BATCHES, CIFAR_FOLDER
from harness.errors import HarnessError
from harness.files import read_json

MakeRoot = Callable[[str], Path]


@pytest.fixture
def mnist_copy(standin_root: MakeRoot, tmp_path: Path) -> Path:
    """Return a data folder whose MNIST files a test may break."""
    shutil.copytree(standin_root("mnist") / "mnist", tmp_path / "mnist")
    return tmp_path


@pytest.fixture
def cifar_copy(standin_root: MakeRoot, tmp_path: Path) -> Path:
    """Return a data folder whose CIFAR-10 files a test may break."""
    shutil.copytree(standin_root("cifar10") / "cifar10", tmp_path / "cifar10")
    return tmp_path


def _labels(root: Path) -> Path:
    return root / "mnist" / "train-labels-idx1-ubyte.gz"


def test_records_digest_ignores_the_order() -> None:
    records = np.random.default_rng(0).integers(0, 256, (50, 3073), dtype=np.uint8)
    shuffled = np.random.default_rng(1).permutation(records)
    assert records_digest(records) == records_digest(shuffled)
    shuffled[3, 7] ^= 1
    assert records_digest(records) != records_digest(shuffled)


def test_missing_folder_says_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        load_dataset("mnist", tmp_path / "none")
    assert f"bnn data fetch --dataset mnist --out {tmp_path / 'none'}" in str(caught.value)
    assert "bnn data standin --dataset mnist" in str(caught.value)


def test_missing_file_is_named(mnist_copy: Path) -> None:
    _labels(mnist_copy).unlink()
    with pytest.raises(HarnessError, match="train-labels-idx1-ubyte.* does not exist"):
        load_dataset("mnist", mnist_copy)


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="unknown dataset 'imagenet'; allowed: mnist, cifar10"):
        load_dataset("imagenet", tmp_path)


def test_one_changed_byte_is_refused(mnist_copy: Path) -> None:
    path = _labels(mnist_copy)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] = (data[-1] + 1) % 10
    path.write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(HarnessError) as caught:
        load_dataset("mnist", mnist_copy)
    for part in (str(path), "a25bea736e30d166cdddb491f175f624", "found", "bnn data fetch"):
        assert part in str(caught.value)


def test_truncated_file_is_refused(mnist_copy: Path) -> None:
    path = _labels(mnist_copy)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HarnessError, match=r"train-labels.*whole gzip stream.*bnn data fetch"):
        load_dataset("mnist", mnist_copy)


def test_the_container_does_not_matter(mnist_copy: Path) -> None:
    expected = load_dataset("mnist", mnist_copy)
    for path in list((mnist_copy / "mnist").iterdir()):
        (path.with_suffix("")).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    raw = load_dataset("mnist", mnist_copy)
    assert raw.manifest == expected.manifest
    assert np.array_equal(raw.train.pixels, expected.train.pixels)


def test_mixed_sources_are_refused(mnist_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = "train-labels-idx1-ubyte"
    monkeypatch.setitem(digests.OFFICIAL["mnist"], unit, digests.STANDIN["mnist"][unit])
    with pytest.raises(HarnessError, match="official and stand-in files are mixed"):
        load_dataset("mnist", mnist_copy)


def test_cifar_archive_equals_folder(cifar_copy: Path) -> None:
    expected = load_dataset("cifar10", cifar_copy)
    folder = cifar_copy / "cifar10" / CIFAR_FOLDER
    with tarfile.open(cifar_copy / "cifar10" / CIFAR_ARCHIVE, "w:gz", compresslevel=1) as tar:
        tar.add(folder, CIFAR_FOLDER)
    shutil.rmtree(folder)
    archived = load_dataset("cifar10", cifar_copy)
    assert archived.manifest == expected.manifest
    assert np.array_equal(archived.valid.pixels, expected.valid.pixels)


def test_cifar_in_another_order_is_accepted_and_said(cifar_copy: Path) -> None:
    path = cifar_copy / "cifar10" / CIFAR_FOLDER / CIFAR_BATCHES["train"][0]
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)
    before = load_dataset("cifar10", cifar_copy).manifest
    path.write_bytes(records[::-1].tobytes())
    loaded = load_dataset("cifar10", cifar_copy)
    assert loaded.source == "standin"
    assert loaded.manifest["original_order"] is False
    assert loaded.manifest["content"] == before["content"]
    assert loaded.manifest["digest"] != before["digest"], "another split: no run goes on with it"


def test_cifar_batch_cut_at_a_record_is_refused(cifar_copy: Path) -> None:
    path = cifar_copy / "cifar10" / CIFAR_FOLDER / CIFAR_BATCHES["train"][4]
    path.write_bytes(path.read_bytes()[: -3073 * 5])
    with pytest.raises(HarnessError, match="the content of train is not the publisher's"):
        load_dataset("cifar10", cifar_copy)


def test_svhn_without_extra_is_labelled(standin_root: MakeRoot, tmp_path: Path) -> None:
    (tmp_path / "svhn").mkdir()
    for part in ("train", "test"):
        name = f"{part}_32x32.mat"
        shutil.copy(standin_root("svhn") / "svhn" / name, tmp_path / "svhn" / name)
    loaded = load_dataset("svhn", tmp_path)
    assert loaded.variant == loaded.manifest["variant"] == "train-only"
    assert loaded.manifest["counts"] == {"train": 4600, "valid": 400, "test": 2000}


def test_svhn_of_the_published_size_is_judged_by_md5(
    standin_root: MakeRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = standin_root("svhn")
    for path in (root / "svhn").iterdir():
        monkeypatch.setitem(digests.SVHN_BYTES, path.name, path.stat().st_size)
        monkeypatch.setitem(digests.OFFICIAL["svhn"], path.name, digests.md5_file(path))
    monkeypatch.setitem(splits._SVHN_PER_CLASS, "official", (50, 10))
    loaded = load_dataset("svhn", root)
    assert (loaded.source, loaded.variant) == ("official", "full")
    assert loaded.manifest["counts"] == {"train": 7400, "valid": 600, "test": 2000}
    monkeypatch.setitem(digests.OFFICIAL["svhn"], "test_32x32.mat", "0" * 32)
    with pytest.raises(HarnessError, match=r"test_32x32\.mat: the content .* expected 00000"):
        load_dataset("svhn", root)


def test_verify_command_writes_the_manifest(standin_root: MakeRoot, tmp_path: Path) -> None:
    root, out = standin_root("mnist"), tmp_path / "made" / "mnist.json"
    done = CliRunner().invoke(
        app, ["verify", "--dataset", "mnist", "--data", str(root), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "6,667" in done.output and "standin" in done.output
    assert read_json(out) == {**load_dataset("mnist", root).manifest, "root": str(root)}


@pytest.mark.parametrize(
    ("dataset", "counts", "first"),
    [("mnist", (50_000, 10_000, 10_000), 5), ("cifar10", (45_000, 5_000, 10_000), None)],
)
def test_official_data(
    dataset: str, counts: tuple[int, int, int], first: int | None, real_root: Path
) -> None:
    loaded = load_dataset(dataset, real_root)
    assert loaded.source == "official"
    assert tuple(loaded.manifest["counts"].values()) == counts
    assert np.bincount(loaded.test.labels).sum() == 10_000
    if first is not None:
        assert loaded.train.labels[0] == first
