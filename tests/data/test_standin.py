"""Stand-ins: pinned content, publishers' formats, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data import digests
from harness.data.dataset import load_dataset
from harness.data.names import DATASETS
from harness.data.standin import COUNTS, write, write_standin
from harness.data.standin.draws import Draws
from harness.errors import HarnessError

_SIZES = {
    "mnist": (6667, 1333, 2000, (1, 28, 28)),
    "cifar10": (7200, 800, 2000, (3, 32, 32)),
    "svhn": (7400, 600, 2000, (3, 32, 32)),
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_standin_has_its_pinned_content(dataset: str, standin_root: Callable[[str], Path]) -> None:
    loaded = load_dataset(dataset, standin_root(dataset))  # compares every digest
    train, valid, test, shape = _SIZES[dataset]
    assert loaded.source == loaded.manifest["source"] == "standin"
    assert loaded.manifest["counts"] == {"train": train, "valid": valid, "test": test}
    assert loaded.manifest["original_order"] is True
    assert loaded.manifest["content"] == digests.STANDIN[dataset]
    assert "in proportion" in loaded.manifest["split"]["rule"]
    for images in (loaded.train, loaded.valid, loaded.test):
        assert images.pixels.shape[1:] == shape
        assert images.pixels.dtype == np.uint8 and images.labels.dtype == np.int64
        assert images.pixels.flags.c_contiguous and images.pixels.flags.writeable
        assert np.bincount(images.labels, minlength=10).min() > 0


def test_draws_are_pinned() -> None:
    draws = Draws("test")
    assert draws.integers(10, 5).tolist() == [7, 1, 9, 4, 4]
    assert draws.uniform(-1, 1, 3).tobytes().hex() == "32527dbf4082a43e54888abe"
    noise = draws.noise(100_001)
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01


def test_standin_is_kept_when_intact(standin_root: Callable[[str], Path]) -> None:
    root = standin_root("mnist")
    before = {path: path.stat().st_mtime_ns for path in (root / "mnist").iterdir()}
    write_standin("mnist", root)
    assert before == {path: path.stat().st_mtime_ns for path in (root / "mnist").iterdir()}


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "notes.txt").write_text("mine")
    with pytest.raises(HarnessError, match="exists and is no intact stand-in"):
        write_standin("mnist", tmp_path)
    assert (tmp_path / "mnist" / "notes.txt").read_text() == "mine"


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, parts: object) -> None:
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write_mnist", fail)
    with pytest.raises(HarnessError, match="cannot write .*mnist: No space left"):
        write_standin("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_name() -> None:
    with pytest.raises(HarnessError, match="unknown dataset 'mnst'; allowed: mnist, cifar10"):
        write_standin("mnst", "anywhere")


def test_ten_thousand_images_each() -> None:
    assert {dataset: sum(parts.values()) for dataset, parts in COUNTS.items()} == {
        "mnist": 10_000,
        "cifar10": 10_000,
        "svhn": 10_000,
    }
