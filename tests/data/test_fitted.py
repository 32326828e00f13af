"""Preprocessing that is fitted once: found again, and never believed when it is damaged."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import fitted as module
from harness.data.dataset import Dataset
from harness.data.fitted import fitted, identity
from harness.data.formats import Images
from harness.data.preprocess import KINDS, fit


def dataset(digest: str = "d1" * 32, split: str = "e2" * 32) -> Dataset:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)
    images = Images(pixels, np.zeros(40, np.int64))
    manifest = {"digest": digest, "split": {"digest": split}}
    return Dataset("cifar10", "standin", "full", images, images, images, manifest=manifest)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of fits that are really made."""
    made: list[str] = []

    def counted(kind: str, pixels: Any) -> Any:
        made.append(kind)
        return fit(kind, pixels)

    monkeypatch.setattr(module, "fit", counted)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_run_finds_the_same_map(kind: str, tmp_path: Path, fits: list[str]) -> None:
    data = dataset()
    first, second = fitted(kind, data, tmp_path), fitted(kind, data, tmp_path)
    assert fits == [kind] * (2 if kind in module.UNCACHED else 1)
    pixels = data.test.pixels
    assert np.array_equal(first.apply(pixels), second.apply(pixels))
    for name, array in first.state().items():
        again = second.state()[name]
        assert (again.dtype, again.shape) == (array.dtype, array.shape)


def test_other_data_split_or_kind_is_another_file(tmp_path: Path, fits: list[str]) -> None:
    for data in (dataset(), dataset(digest="00"), dataset(split="00")):
        fitted("zca", data, tmp_path)
    fitted("gcn-lcn", dataset(), tmp_path)
    assert fits == ["zca", "zca", "zca", "gcn-lcn"]
    assert len(list((tmp_path / module.FOLDER).glob("*.safetensors"))) == 4
    assert identity("zca", dataset().manifest) != identity("gcn-lcn", dataset().manifest)


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_a_damaged_file_is_fitted_anew(
    damage: str, tmp_path: Path, fits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = fitted("zca", dataset(), tmp_path).apply(dataset().test.pixels)
    (path,) = (tmp_path / module.FOLDER).glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-100]
    elif damage == "flip":
        content[-5] ^= 0x10
    else:  # a whole file, of another split
        fitted("zca", dataset(split="00"), tmp_path)
        (other,) = set((tmp_path / module.FOLDER).glob("*.safetensors")) - {path}
        content = bytearray(other.read_bytes())
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = fitted("zca", dataset(), tmp_path)
    assert "fitting anew" in caplog.text
    assert np.array_equal(found.apply(dataset().test.pixels), expected)
    count = len(fits)
    fitted("zca", dataset(), tmp_path)
    assert len(fits) == count, "the file was not mended"


def test_the_variable_names_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[str]
) -> None:
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path / "cache"))
    fitted("zca", dataset(), tmp_path / "data")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_costs_a_fit_and_a_warning(
    tmp_path: Path, fits: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / module.FOLDER).write_text("in the way")
    for _ in range(2):
        fitted("zca", dataset(), tmp_path)
    assert fits == ["zca", "zca"]
    assert "zca preprocessing is not kept" in caplog.text
    assert os.listdir(tmp_path) == [module.FOLDER]
