"""Preprocessing on the device, batch by batch, against the whole split at once."""

import numpy as np
import pytest
import torch

from harness.data import preprocess
from harness.data.formats import Images
from harness.train import inputs
from harness.train.inputs import network_input, resident

# Sums in another order move values by 3e-7; those of a flat image, which is its rounding errors
# over a deviation floored at 1e-4, by 3e-5.
TOLERANCE = 1e-4
CPU = torch.device("cpu")


def images(count: int = 30) -> Images:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    pixels[0] = 77  # a flat image
    return Images(pixels, rng.integers(0, 10, count))


@pytest.mark.parametrize("kind", preprocess.KINDS)
def test_a_batch_equals_the_whole_split(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = images()
    fitted = preprocess.fit(kind, split.pixels)
    whole = resident(split, fitted, False, CPU)
    monkeypatch.setattr(inputs, "HELD_BYTES", 0)
    by_batch = resident(split, fitted, False, CPU)
    assert (whole.pixels.dtype, by_batch.pixels.dtype) == (torch.float32, torch.uint8)
    chosen = torch.tensor([7, 0, 29, 3])
    for indices in (chosen, slice(5, 12)):
        ours, labels = by_batch.batch(indices)
        theirs, same = whole.batch(indices)
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("kind", preprocess.KINDS)
def test_a_batch_of_a_gpu_asks_nothing_of_the_host(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "HELD_BYTES", 0)
    split, elsewhere = images(), torch.device("meta")  # from which nothing can be copied
    held = resident(split, preprocess.fit(kind, split.pixels), False, elsewhere)
    x, labels = held.batch(torch.zeros(4, dtype=torch.long, device=elsewhere))
    assert (x.dtype, x.shape, x.device) == (torch.float32, (4, 3, 16, 16), elsewhere)
    assert labels.device == elsewhere


def test_pixels_of_an_integer_first_layer_stay_bytes() -> None:
    split = images()
    held = resident(split, preprocess.fit("scale", split.pixels), True, CPU)
    assert held.pixels.data_ptr() == torch.from_numpy(split.pixels).data_ptr()
    found, _ = held.batch(slice(0, 4))
    assert torch.equal(found, network_input(torch.from_numpy(split.pixels[:4])))
    assert set((found % 2).abs().unique().tolist()) == {1.0}
