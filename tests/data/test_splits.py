"""The paper's splits, by their counts and by plain rules."""

import numpy as np
import pytest

from harness.data.splits import split, split_last, split_per_class
from harness.errors import HarnessError


@pytest.mark.parametrize(
    ("dataset", "images", "valid"),
    [("mnist", 60_000, 10_000), ("cifar10", 50_000, 5_000), ("mnist", 8_000, 1_333)],
)
def test_last_images_are_held_out(dataset: str, images: int, valid: int) -> None:
    parted = split(dataset, "official", np.zeros(images, np.int64))
    assert parted.train.tolist() == list(range(images - valid))
    assert parted.valid.tolist() == list(range(images - valid, images))


def test_svhn_counts_are_the_papers() -> None:
    train = np.arange(73_257) % 10
    extra = np.arange(531_131) % 10
    parted = split("svhn", "official", train, extra)
    assert (len(parted.train), len(parted.valid)) == (598_388, 6_000)
    of_train, of_extra = parted.valid[parted.valid < 73_257], parted.valid[parted.valid >= 73_257]
    assert np.bincount(train[of_train]).tolist() == [400] * 10
    assert np.bincount(extra[of_extra - 73_257]).tolist() == [200] * 10
    assert not np.intersect1d(parted.train, parted.valid).size


def test_svhn_train_only() -> None:
    parted = split("svhn", "official", np.arange(73_257) % 10)
    assert (len(parted.train), len(parted.valid)) == (69_257, 4_000)
    assert parted.rule == "first 400 per class of train"


def test_first_of_each_class_in_file_order() -> None:
    labels = np.repeat(np.arange(10), 3)[::-1].astype(np.int64)
    parted = split_per_class([("train", labels, 2)])
    expected = [i for i in range(30) if i % 3 < 2]
    assert parted.valid.tolist() == expected


def test_too_few_of_a_class_is_named() -> None:
    with pytest.raises(HarnessError, match="needs 400 images of class 0, found 3"):
        split("svhn", "official", np.repeat(np.arange(10), 3).astype(np.int64))


def test_digest_tells_splits_apart_and_is_pinned() -> None:
    assert split_last(10, 3).digest != split_last(10, 4).digest
    assert split_last(60_000, 10_000).digest == (
        "cfd29bd0ba6b2e4f477852a041ece3befc3a2b7bddb83d9863f68a3e9251e7e9"
    )
